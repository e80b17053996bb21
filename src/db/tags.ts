import type { Digest } from '../oci/digest.ts'
import type { RepositoryName } from '../oci/name.ts'
import type { Tag } from '../oci/reference.ts'
import type { Fragment, Sql, Transaction } from './client.ts'

/** Tags after `last` in byte order, at most `limit`; undefined where there is no such repository. */
export async function listTags(
  sql: Sql,
  repository: RepositoryName,
  { last, limit }: { last: string; limit: number },
): Promise<string[] | undefined> {
  // One JSON text instead of rows: parsing thousands of rows costs more than reading them.
  const [row] = await sql<{ names: string[] }[]>`
    select coalesce(
      (select json_agg(page.name) from (
        select t.name from tags t where t.repository_id = r.id and t.name > ${last} order by t.name limit ${limit}
      ) page), '[]') as names
    from repositories r where r.name = ${repository}`
  return row?.names
}

/**
 * The first of these globs that matches a name says whether it may be listed; none: it may not. `prefix`: what it spells
 * out before its first star; `rest`: what may stand behind that; `pattern`: the whole as a regular expression.
 */
export type NameFilter = readonly {
  prefix: string
  rest: 'nothing' | 'segment' | 'anything' | 'pattern'
  pattern: string
  readable: boolean
}[]

/** Whether a name may be listed: an SQL condition. `filter` undefined: any may. */
export function listable(sql: Sql, name: Fragment, filter: NameFilter | undefined): Fragment {
  if (!filter) return sql`true`
  const cases = filter.map((glob) => sql`when ${matching(sql, name, glob)} then ${glob.readable}::boolean`)
  return cases.length === 0 ? sql`false` : sql`case ${cases} else false end`
}

/** A regular expression takes ten times as long as what says the same of nearly every glob there is. */
function matching(sql: Sql, name: Fragment, { prefix, rest, pattern }: NameFilter[number]): Fragment {
  if (rest === 'pattern') return sql`${name} ~ ${pattern}`
  if (rest === 'nothing') return sql`${name} = ${prefix}`
  const starts = sql`starts_with(${name}, ${prefix})`
  return rest === 'anything' ? starts : sql`(${starts} and strpos(substr(${name}, ${prefix.length + 1}::int), '/') = 0)`
}

/** Beginnings of names outside of which there is nothing to list, none the beginning of another. */
function beginnings(filter: NameFilter | undefined): string[] {
  const prefixes = filter ? filter.filter(({ readable }) => readable).map(({ prefix }) => prefix) : ['']
  return [...new Set(prefixes)].filter((one, _, all) => !all.some((other) => other !== one && one.startsWith(other)))
}

/**
 * Repositories that have a manifest and may be listed, after `last` in byte order, at most `limit`. Only where there can
 * be some is looked: of many repositories, somebody may read a few.
 */
export async function listRepositories(
  sql: Sql,
  { last, limit, filter }: { last: string; limit: number; filter?: NameFilter | undefined },
): Promise<string[]> {
  // Behind every character that a name may have comes the one that ends the range.
  const [row] = await sql<{ names: string[] }[]>`
    select coalesce(json_agg(page.name), '[]') as names from (
      select found.name from unnest(${beginnings(filter)}::text[]) as b (prefix), lateral (
        select r.name from repositories r
        where r.name > ${last} and r.name >= b.prefix and r.name < b.prefix || E'\\x7f'
          and ${listable(sql, sql`r.name`, filter)} and exists (select from manifests m where m.repository_id = r.id)
        order by r.name limit ${limit}
      ) found
      order by found.name limit ${limit}
    ) page`
  return row?.names ?? []
}

/** Deletes a tag; the manifest stays. False where there was none. */
export async function deleteTag(sql: Sql | Transaction, repository: RepositoryName, tag: Tag): Promise<boolean> {
  const rows = await sql`
    delete from tags t using repositories r
    where r.name = ${repository} and t.repository_id = r.id and t.name = ${tag}
    returning t.name`
  return rows.length > 0
}

/** What a tag points at, locked until the transaction ends. */
export async function lockTag(sql: Transaction, repository: RepositoryName, tag: Tag): Promise<Digest | undefined> {
  const [row] = await sql<{ digest: Digest }[]>`
    select t.manifest_digest as digest from repositories r join tags t on t.repository_id = r.id
    where r.name = ${repository} and t.name = ${tag} for update of t`
  return row?.digest
}

/** Which of these tags name another manifest than this one. */
export async function tagsElsewhere(
  tx: Transaction,
  repository: RepositoryName,
  tags: readonly Tag[],
  digest: Digest,
): Promise<Tag[]> {
  const rows = await tx<{ name: Tag }[]>`
    select t.name from repositories r join tags t on t.repository_id = r.id
    where r.name = ${repository} and t.name = any(${tags as readonly string[]}::text[]) and t.manifest_digest <> ${digest}
    order by t.name`
  return rows.map((row) => row.name)
}

/** Points a tag at a manifest that is there. */
export async function setTag(tx: Transaction, repository: RepositoryName, tag: Tag, digest: Digest): Promise<void> {
  await tx`
    insert into tags (repository_id, name, manifest_digest)
    select id, ${tag}, ${digest} from repositories where name = ${repository}
    on conflict (repository_id, name) do update
      set manifest_digest = excluded.manifest_digest, updated_at = excluded.updated_at`
}
