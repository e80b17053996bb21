-- The collector's work lists in the order in which it reads them, so that rows that are due at the same moment (all of a
-- deleted repository's) are not sorted anew for each page of them.
create index blobs_due on blobs (review_at, digest) where review_at is not null;
create index repository_blobs_due on repository_blobs (review_at, repository_id, digest) where review_at is not null;
