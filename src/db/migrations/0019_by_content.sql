-- An entry that begins with the content and goes on with the repository finds one row whichever index the planner takes.
-- By content alone, it would read through all repositories that have the same (an empty config); by repository alone, all
-- that the one has. See repository_blobs_content.
create index manifests_content on manifests (digest, repository_id);
drop index manifests_digest;
create index tags_content on tags (manifest_digest, repository_id);
drop index tags_manifest;
