-- What the facade asks of packs. Every row here follows from a manifest and is written in its transaction; all of it can
-- be made again from the manifests (`packs rebuild`), but for what was deleted and what a person said (state, message).

-- A pack is a repository under packs/. Its row is the lock under which its versions change: whoever publishes, deletes
-- or yanks one takes it first. The columns below the line describe the version that is shown in lists.
create table packs (
  repository_id bigint primary key references repositories (id),
  pack_id text collate "C" not null unique,
  created_at timestamptz not null default now(),
  -- the highest stable version that is not yanked, which is what the tag `latest` names; null: there is none
  latest text collate "C",
  -- the version that lists show: the latest, else the highest one there is; null: every version was deleted
  shown text collate "C",
  versions integer not null default 0,
  updated_at timestamptz not null default now(),
  type text collate "C",
  author text,
  state text collate "C",
  words tsvector,
  -- its entry in lists, as JSON text: a page is then a walk along an index
  summary text,
  -- what resolution looks at: a line per living version, the highest first (db/candidates.ts). Resolving 200 packs of
  -- 100 versions reads these 200 texts in 3 ms; made of 20,000 rows each time, they take 30 ms, and JSON of them 120 ms
  candidates text
);
create index packs_type on packs (type, pack_id) where shown is not null;
create index packs_updated on packs (updated_at desc, pack_id desc) where shown is not null;
create index packs_words on packs using gin (words);

-- `release` is the version without its build part: two versions that differ only there are one release, and the primary
-- key lets it be published once. A deleted version stays as a row without a manifest: its number is spent.
-- `document` is json, not jsonb: its text is answered as it is. min_runner and max_runner are precedences too.
-- `precedence` sorts by bytes as versions do (packs/version.ts). `dependencies` is their part of the document, null where
-- there are none: candidates and locks are made of it, and documents are long.
create table pack_versions (
  repository_id bigint not null references packs (repository_id),
  release text collate "C" not null,
  version text collate "C" not null,
  precedence text collate "C" not null,
  prerelease boolean not null,
  type text collate "C" not null check (type in ('policy', 'analyzer', 'task', 'bundle')),
  document json not null,
  dependencies text,
  state text collate "C" not null default 'active' check (state in ('active', 'deprecated', 'yanked')),
  message text,
  replaced_by text collate "C",
  manifest_digest text collate "C",
  content_digest text collate "C" not null,
  content_size bigint not null,
  content_type text collate "C" not null,
  content_title text,
  min_runner text collate "C",
  max_runner text collate "C",
  published_at timestamptz not null default now(),
  deleted_at timestamptz,
  primary key (repository_id, release),
  foreign key (repository_id, manifest_digest) references manifests (repository_id, digest),
  check ((deleted_at is null) = (manifest_digest is not null))
);
create index pack_versions_order on pack_versions (repository_id, precedence desc) where deleted_at is null;
create index pack_versions_manifest on pack_versions (repository_id, manifest_digest) where deleted_at is null;

-- What living versions depend on, for the question the other way round.
create table pack_dependencies (
  repository_id bigint not null,
  release text collate "C" not null,
  depends_on text collate "C" not null,
  range text collate "C" not null,
  optional boolean not null,
  primary key (repository_id, release, depends_on),
  foreign key (repository_id, release) references pack_versions (repository_id, release)
);
create index pack_dependencies_on on pack_dependencies (depends_on);
