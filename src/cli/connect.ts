import { homedir } from 'node:os'
import { join } from 'node:path'
import type { Client } from '../client/client.ts'
import { addressOf, type Credentials, credentialsFor, registryOf } from './auth-file.ts'
import type { Run } from './run.ts'
import { version } from './version.ts'

/** A client of the registry that a command is meant for, with what is kept of its login. Nothing is sent yet. */
export async function connect({ env, flags }: Run): Promise<Client> {
  const url = await registryOf(env, flags.registry)
  return clientOf(env, url, await credentialsFor(env, url))
}

export async function clientOf(
  env: NodeJS.ProcessEnv,
  url: URL,
  credentials: Credentials | undefined,
): Promise<Client> {
  const { openClient } = await import('../client/client.ts')
  return openClient({
    url: addressOf(url),
    ...(credentials ? { credentials } : {}),
    cacheDir: cachePath(env),
    userAgent: `packs/${version}`,
  })
}

/** Where verified downloads are kept: PACKS_CACHE, or `$XDG_CACHE_HOME/packs`, by default under ~/.cache. */
function cachePath(env: NodeJS.ProcessEnv): string {
  return env.PACKS_CACHE || join(env.XDG_CACHE_HOME || join(env.HOME || homedir(), '.cache'), 'packs')
}
