import { randomUUID } from 'node:crypto'
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { PacksError } from '../client/failure.ts'

/** Who a registry is told is asking. */
export type Credentials = { username: string; password: string } | { token: string }

/**
 * As docker's config.json has it: `auth` is base64 of `user:password`, `registrytoken` a bearer token. `secure`: it was
 * kept for https, and http to that host, where everybody on the way could read it, does not get it.
 */
type Entry = { auth?: string; registrytoken?: string; secure?: true }
type AuthFile = { auths: Record<string, Entry>; currentRegistry?: string }

const fallbackRegistry = 'http://127.0.0.1:5000'

/** Where logins are kept: `$XDG_CONFIG_HOME/packs/auth.json`, by default under ~/.config. */
export function authPath(env: NodeJS.ProcessEnv): string {
  return join(env.XDG_CONFIG_HOME || join(env.HOME || homedir(), '.config'), 'packs', 'auth.json')
}

/**
 * The registry that is meant: the one given, PACKS_REGISTRY, that of the last login, or the one a first `npm start` serves.
 * Throws URL_INVALID.
 */
export async function registryOf(env: NodeJS.ProcessEnv, given: string | undefined): Promise<URL> {
  const written = given ?? (env.PACKS_REGISTRY || (await read(env)).currentRegistry) ?? fallbackRegistry
  // `localhost:5000` alone would be read as an address of the scheme "localhost".
  const local = /^(?:localhost|127\.[\d.]+|\[::1\])(?::\d+)?(?:\/|$)/.test(written)
  const address = /^[a-z]+:\/\//i.test(written) ? written : `${local ? 'http' : 'https'}://${written}`
  const url = URL.canParse(address) ? new URL(address) : undefined
  if (url && /^https?:$/.test(url.protocol) && !url.search && !url.hash) return url
  throw new PacksError(
    'URL_INVALID',
    // Without credentials, which may stand in front of an "@".
    `${JSON.stringify(written.replace(/^([a-z]+:\/\/)?.*@/i, '$1'))} is not the address of a registry, such as https://packs.example.org`,
  )
}

/** The address as text, without credentials and without a slash at its end. */
export function addressOf(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`.replace(/\/+$/, '')
}

/**
 * What is kept for this registry's host, or what its address says; undefined: nobody. Throws LOGIN_INSECURE where it
 * would be sent by http, and was kept for https.
 */
export async function credentialsFor(env: NodeJS.ProcessEnv, url: URL): Promise<Credentials | undefined> {
  if (url.username) return { username: decodeURIComponent(url.username), password: decodeURIComponent(url.password) }
  const entry = (await read(env)).auths[url.host]
  if (entry?.secure && url.protocol !== 'https:')
    throw new PacksError(
      'LOGIN_INSECURE',
      `the login at ${url.host} was made by https, and is not sent by http, where others could read it: use https://${url.host}, or log in again: packs login ${addressOf(url)}`,
    )
  if (entry?.registrytoken) return { token: entry.registrytoken }
  const text = Buffer.from(entry?.auth ?? '', 'base64').toString()
  const colon = text.indexOf(':')
  return colon < 0 ? undefined : { username: text.slice(0, colon), password: text.slice(colon + 1) }
}

/** Keeps a login, and this registry as the current one. */
export async function keepLogin(env: NodeJS.ProcessEnv, url: URL, credentials: Credentials | undefined): Promise<void> {
  const { auths, ...rest } = await read(env)
  const others = Object.fromEntries(Object.entries(auths).filter(([host]) => host !== url.host))
  const secure = url.protocol === 'https:' ? { secure: true as const } : {}
  const entry = credentials && { [url.host]: { ...entryOf(credentials), ...secure } }
  await write(env, { ...rest, auths: { ...others, ...entry }, currentRegistry: addressOf(url) })
}

function entryOf(credentials: Credentials): Entry {
  if ('token' in credentials) return { registrytoken: credentials.token }
  const { username, password } = credentials
  return { auth: Buffer.from(`${username}:${password}`).toString('base64') }
}

/** Forgets a login; false where there was none. Where it was the current registry, none is afterwards. */
export async function forgetLogin(env: NodeJS.ProcessEnv, url: URL): Promise<boolean> {
  const { auths, currentRegistry, ...rest } = await read(env)
  const isCurrent = currentRegistry === addressOf(url)
  if (!auths[url.host] && !isCurrent) return false
  const others = Object.fromEntries(Object.entries(auths).filter(([host]) => host !== url.host))
  await write(env, { ...rest, auths: others, ...(currentRegistry && !isCurrent ? { currentRegistry } : {}) })
  return true
}

async function read(env: NodeJS.ProcessEnv): Promise<AuthFile> {
  const path = authPath(env)
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '{}'
    throw error
  })
  try {
    const { auths, ...rest } = JSON.parse(text)
    return { ...rest, auths: { ...auths } }
  } catch (error) {
    throw notReadable(path, error)
  }
}

function notReadable(path: string, cause: unknown): PacksError {
  return new PacksError('AUTH_FILE_INVALID', `${path} is not JSON. Delete it and log in again: packs login`, { cause })
}

/** The file is replaced whole, and only its owner can ever read it. */
async function write(env: NodeJS.ProcessEnv, file: AuthFile): Promise<void> {
  const path = authPath(env)
  await mkdir(dirname(path), { recursive: true, mode: 0o700 })
  const draft = `${path}.${randomUUID()}`
  try {
    await writeFile(draft, `${JSON.stringify(file, undefined, 2)}\n`, { mode: 0o600, flag: 'wx' })
    await rename(draft, path)
  } catch (error) {
    await rm(draft, { force: true })
    throw error
  }
}
