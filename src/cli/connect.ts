import { homedir } from 'node:os'
import { join } from 'node:path'
import type { Client } from '../client/client.ts'
import type { OnWait } from '../client/retry.ts'
import { addressOf, type Credentials, credentialsFor, registryOf } from './auth-file.ts'
import type { Output } from './output.ts'
import type { Run } from './run.ts'
import { version } from './version.ts'

/** A client of the registry that a command is meant for, with what is kept of its login. Nothing is sent yet. */
export async function connect(at: Run): Promise<Client> {
  const url = await registryOf(at.env, at.flags.registry)
  return clientOf(at, url, await credentialsFor(at.env, url))
}

export async function clientOf({ env, output }: Run, url: URL, credentials: Credentials | undefined): Promise<Client> {
  const { openClient } = await import('../client/client.ts')
  return openClient({
    url: addressOf(url),
    ...(credentials ? { credentials } : {}),
    cacheDir: cachePath(env),
    userAgent: `packs/${version}`,
    onWait: waitTeller(output),
  })
}

/** Shorter pauses are not worth a word. */
const leastToldMs = 2_000

/** Says that a command waits, and why: once, of however many calls that wait at the same time. */
function waitTeller({ json, note }: Output): OnWait {
  let toldUntil = 0
  return ({ message }, delayMs) => {
    const now = performance.now()
    if (json || delayMs < leastToldMs || now < toldUntil) return
    toldUntil = now + delayMs
    note(`${message}; trying again in ${Math.ceil(delayMs / 1000)} s`)
  }
}

/** Where verified downloads are kept: PACKS_CACHE, or `$XDG_CACHE_HOME/packs`, by default under ~/.cache. */
function cachePath(env: NodeJS.ProcessEnv): string {
  return env.PACKS_CACHE || join(env.XDG_CACHE_HOME || join(env.HOME || homedir(), '.cache'), 'packs')
}
