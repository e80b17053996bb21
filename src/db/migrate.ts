import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { connect, isInTheWay, type Sql } from './client.ts'
import { prepareQueues } from './queue.ts'
import { type QueueOptions, queues } from './queues.ts'

/** Any fixed number: two starts of this registry on one database take turns by it. */
const lockNumber = 7_225_748_101

type Migration = { number: number; name: string; text: string }

/** The numbers and names of the migrations that come with this version. */
export async function knownMigrations(): Promise<{ number: number; name: string }[]> {
  return (await ours()).map(({ number, name }) => ({ number, name }))
}

/** The migrations that come with this version, in order. */
async function ours(): Promise<Migration[]> {
  const folder = fileURLToPath(new URL('./migrations/', import.meta.url))
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort()
  return Promise.all(
    names.map(async (name) => ({
      number: Number.parseInt(name, 10),
      name,
      text: await readFile(`${folder}${name}`, 'utf8'),
    })),
  )
}

/**
 * Brings the schema up to this version. Any number of processes may call this at once on one database: the first takes
 * the advisory lock, the others wait for it and find nothing left to do. Each migration is one transaction that claims
 * its row first, so it is applied once and whole. The queues of jobs are made with it. Returns what was applied.
 * `upTo`: to the schema of an older version, as a backup of it needs it.
 * Throws an Error in words when the database has been migrated by a newer version, or is older than PostgreSQL 15.
 */
export async function migrate(
  url: string,
  wanted: Record<string, QueueOptions> = queues,
  { upTo = Number.POSITIVE_INFINITY } = {},
): Promise<string[]> {
  const migrations = (await ours()).filter(({ number }) => number <= upTo)
  // A connection of its own: closing it gives back the lock and whatever a failed migration left open.
  const sql = connect(url, { max: 1 })
  try {
    const [server] = await sql<{ version: number }[]>`select current_setting('server_version_num')::int as version`
    if (server && server.version < 150000)
      throw new Error(
        `This database server is PostgreSQL ${Math.floor(server.version / 10000)}; 15 or newer is needed.`,
      )
    await sql`select pg_advisory_lock(${lockNumber}::bigint)`
    await sql`create table if not exists schema_migrations (
      number int primary key, name text not null, applied_at timestamptz not null default now())`
    const [last] = await sql<{ number: number; name: string }[]>`
      select number, name from schema_migrations order by number desc limit 1`
    refuseNewer(last, migrations)
    const applied: string[] = []
    for (const migration of migrations) {
      if (last && migration.number <= last.number) continue
      await apply(sql, migration)
      applied.push(migration.name)
    }
    return [...applied, ...(await prepareQueues(sql, wanted))]
  } finally {
    await sql.end({ timeout: 5 })
  }
}

/** How long a migration waits for a table that others use: whoever comes to that table meanwhile waits behind it. */
const lockMs = 2_000
const mostTries = 60

/**
 * Applies one, beside servers of the version before that go on. A migration locks whole tables, and may wait for a
 * statement that waits for another of its tables: one of the two ends then. The migration begins anew; pushes are told
 * to come back. So nothing of it may be done outside of its transaction.
 */
async function apply(sql: Sql, { number, name, text }: Migration): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      await sql.begin(async (tx) => {
        await tx.unsafe(`set local lock_timeout = ${lockMs}`)
        await tx`insert into schema_migrations (number, name) values (${number}, ${name})`
        await tx.unsafe(text)
      })
      return
    } catch (error) {
      if (!isInTheWay(error) || tries === mostTries) throw error
      await sleep(100 + Math.random() * 400)
    }
  }
}

function refuseNewer(last: { number: number; name: string } | undefined, migrations: Migration[]): void {
  const newest = migrations.at(-1)
  if (!last || !newest || last.number <= newest.number) return
  throw new Error(
    `The database's schema (${last.name}) is newer than this version knows (${newest.name}). ` +
      'Start the newer version again, or restore a backup from before the upgrade.',
  )
}
