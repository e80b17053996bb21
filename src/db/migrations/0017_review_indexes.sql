-- In the place of these there are blobs_due and repository_blobs_due. In a transaction of its own: dropping an index keeps
-- readers of the table waiting until the end, which is not to be as long as building the others takes.
drop index blobs_review, repository_blobs_review;
