import type { Config } from '../config.ts'
import { connect } from '../db/client.ts'
import { startEmbedded } from '../db/embedded.ts'
import { migrate } from '../db/migrate.ts'
import type { Log } from '../log.ts'
import type { Ended } from './ended.ts'

/** Something running that must be stopped, the last started first. */
export type Stops = (() => Promise<void>)[]

/**
 * The address of the database: the one that is set, or that of an embedded server, which is started. Its schema is
 * brought up to date. When the embedded server goes away by itself, so does the command. Throws Errors in words.
 */
export async function startDatabase(config: Config, log: Log, stops: Stops, ended: Ended): Promise<string> {
  const embedded = config.databaseUrl
    ? undefined
    : await startEmbedded({ dataDir: config.dataDir, log, settings: embeddedSettings(config) })
  if (embedded) {
    stops.push(() => embedded.stop())
    embedded.exited.then((error) => {
      log.error({ error }, 'the embedded database has ended')
      ended.end(1)
    }, log.error)
  }
  const url = config.databaseUrl ?? embedded?.url ?? ''
  const applied = await reaching(config, () => migrate(url))
  if (applied.length > 0) log.info({ applied }, 'database schema brought up to date')
  return url
}

/** Room for every process's pool and the worker's ear, and for migrations, the lock and a person with psql. */
function embeddedSettings({ processes, databasePool }: Config): { max_connections: number } {
  return { max_connections: processes * databasePool + 16 }
}

/** Codes of a server that is not there: those of the system, and those of the driver. */
const unreached =
  /^(?:ECONN[A-Z]+|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|E(?:HOST|NET)UNREACH|CONNECT_TIMEOUT|CONNECTION_[A-Z]+)$/
/** Of one that is there and lets nobody in: user and password, no such database, no room, not ready. */
const refused = /^(?:28|3D|53300|57P03)/

/** Does what needs the database. One that is set and cannot be used is told in words that name the setting. */
export async function reaching<T>({ databaseUrl }: Config, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (cause) {
    const { code = '', message } = (cause ?? {}) as NodeJS.ErrnoException
    if (databaseUrl === undefined || typeof code !== 'string') throw cause
    if (unreached.test(code))
      throw new Error(
        `DATABASE_URL: the database cannot be reached (${message || code}). Check host and port in it, and that the server runs and takes connections from this machine`,
        { cause },
      )
    if (refused.test(code))
      throw new Error(
        `DATABASE_URL: the database server lets nobody in (${message || code}). Check user, password and database in it`,
        { cause },
      )
    throw cause
  }
}

/** For a command whose other work fails in the same ways: the database that is set can be used, or it is told. */
export async function requireDatabase(config: Config): Promise<void> {
  if (config.databaseUrl === undefined) return
  const sql = connect(config.databaseUrl, { max: 1 })
  try {
    await reaching(config, async () => void (await sql`select 1`))
  } finally {
    await sql.end({ timeout: 5 })
  }
}
