import type { Config } from '../config.ts'
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
  const applied = await migrate(url)
  if (applied.length > 0) log.info({ applied }, 'database schema brought up to date')
  return url
}

/** Room for every process's pool and the worker's ear, and for migrations, the lock and a person with psql. */
function embeddedSettings({ processes, databasePool }: Config): { max_connections: number } {
  return { max_connections: processes * databasePool + 16 }
}
