import type { TestRegistry } from './registry.ts'
import { waitFor } from './wait.ts'

/** Makes everything due that is to be reviewed at all, as if its grace were over. */
export async function endGrace({ deps }: TestRegistry): Promise<void> {
  const { sql } = deps.db
  await sql`update repository_blobs set review_at = now() - interval '1 second' where review_at is not null`
  await sql`update blobs set review_at = now() - interval '1 second' where review_at is not null`
}

/** The keys that the store has under a prefix. */
export async function storedKeys({ deps }: TestRegistry, prefix = 'blobs/'): Promise<string[]> {
  const keys: string[] = []
  for await (const { key } of deps.blobs.list(prefix)) keys.push(key)
  return keys.sort()
}

/** Whether a blob can be read in a repository; that it is looked at does not put its review off. */
export async function isReadable(registry: TestRegistry, repository: string, digest: string): Promise<boolean> {
  const answer = await registry.call('GET', `/v2/${repository}/blobs/${digest}`)
  await answer.arrayBuffer()
  return answer.status === 200
}

/** Waits until this many statements wait for a lock that another transaction has. */
export async function untilBlocked(registry: TestRegistry, count = 1): Promise<void> {
  await waitFor(`${count} to wait for a lock`, async () => (await blocked(registry)) >= count, { everyMs: 5 })
}

/** Waits until a statement waits for such a lock, or `work` is done; fails when that does. */
export async function untilBlockedOrDone(registry: TestRegistry, work: Promise<unknown>): Promise<void> {
  let isOver = false
  const over = work.finally(() => {
    isOver = true
  })
  const either = async () => isOver || (await blocked(registry)) > 0
  await Promise.race([over, waitFor('the work to wait for a lock, or to be done', either, { everyMs: 5 })])
}

async function blocked({ deps }: TestRegistry): Promise<number> {
  const [row] = await deps.db.sql<{ waiting: number }[]>`
    select count(*)::int as waiting from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock' and state = 'active'`
  return row?.waiting ?? 0
}
