import postgres from 'postgres'
import { socketHost } from './embedded-url.ts'

/** Any fixed number: whoever holds its session-level advisory lock owns the embedded PostgreSQL. */
const lockNumber = 722_574_810

/** The lock, held by a connection of its own. */
export type Lock = {
  /** Resolves when the connection is gone, for whatever reason, and the lock with it. */
  readonly lost: Promise<void>
  release(): Promise<void>
}

/**
 * Tries to take the lock. When another session holds it: the process that session belongs to, `undefined`
 * when it ended in the meantime.
 * Throws what the connection throws: the server is starting, stopping, or not there.
 */
export async function tryLock(url: string): Promise<Lock | { holder: number | undefined }> {
  let lose: () => void = () => undefined
  const lost = new Promise<void>((resolve) => {
    lose = resolve
  })
  const sql = postgres(url, {
    ...socketHost(url),
    max: 1,
    // The lock lives as long as this connection: never recycled by age or idleness.
    max_lifetime: null,
    idle_timeout: 0,
    connect_timeout: 5,
    fetch_types: false,
    prepare: false,
    connection: { application_name: `packs-registry ${process.pid}` },
    onnotice: () => undefined,
    onclose: () => lose(),
  })
  try {
    const [row] = await sql<{ got: boolean }[]>`select pg_try_advisory_lock(${lockNumber}::bigint) as got`
    if (row?.got) return { lost, release: () => sql.end({ timeout: 1 }) }
    const [holder] = await sql<{ name: string }[]>`
      select a.application_name as name
      from pg_locks l join pg_stat_activity a using (pid)
      where l.locktype = 'advisory' and l.granted and l.classid = 0 and l.objid = ${lockNumber}::bigint`
    await sql.end({ timeout: 1 })
    return { holder: holder && Number(holder.name.replace(/\D/g, '')) }
  } catch (error) {
    await sql.end({ timeout: 0 })
    throw error
  }
}
