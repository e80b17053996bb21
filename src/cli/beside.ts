import type { Config } from '../config.ts'
import { runningUrl } from '../db/embedded-running.ts'
import { closeDeps, type Deps, openDeps } from '../deps.ts'
import type { Log } from '../log.ts'
import { type Stops, startDatabase } from './database.ts'
import { endOf } from './ended.ts'
import { exitCodes } from './failure.ts'

/** A command that works on the database and the store itself, beside a server or without one. */
export type Beside = { deps: Deps; databaseUrl: string; signal: AbortSignal }

/** Few, for a server that runs on the embedded database has nearly all of its connections. */
const connections = 4

/**
 * Opens database and store for a command. Where the database is the embedded one and a server has it, the command uses it
 * along; else it is started. Ctrl-C aborts the signal; then the exit code is that of a command that was cancelled.
 */
export async function beside(
  config: Config,
  log: Log,
  work: (beside: Beside) => Promise<number>,
  onCancel: () => void = () => undefined,
): Promise<number> {
  const stops: Stops = []
  const ended = endOf()
  const abort = new AbortController()
  ended.code.then(() => abort.abort(), log.error)
  const { signal } = abort
  try {
    const running = config.databaseUrl ? undefined : await runningUrl(config.dataDir)
    const databaseUrl = running ?? (await startDatabase(config, log, stops, ended))
    const deps = await openDeps(
      { ...config, databasePool: Math.min(config.databasePool, connections) },
      databaseUrl,
      log,
    )
    stops.push(() => closeDeps(deps))
    return await work({ deps, databaseUrl, signal })
  } catch (error) {
    if (!signal.aborted) throw error
    onCancel()
    return exitCodes.cancelled
  } finally {
    for (const stop of stops.reverse()) await stop()
  }
}
