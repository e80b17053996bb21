import { hash, randomBytes } from 'node:crypto'
import { unwatchFile, watchFile } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { LRUCache } from 'lru-cache'
import { anonymousWith, everyone, type Principal } from './access.ts'
import { type Issuer, openIssuer } from './issuer.ts'
import { parseUsers, type Users } from './passwords.ts'
import { openPolicy, type Policy, parsePolicy } from './policy.ts'
import type { Keyring } from './registry-token.ts'

/** Kubernetes swaps mounted files by a symbolic link, which file events miss: the files are looked at instead. */
const checkMs = 2_000
const mostVerified = 20_000

/** What a credential was found to be. `until`: milliseconds of the clock; then it is looked at anew. */
export type Verified = { principal: Principal; until: number; generation: number }

/** What a process needs to tell who asks. */
export type Auth = {
  readonly mode: 'none' | 'htpasswd' | 'oidc'
  /** Whoever shows nothing. */
  readonly anonymous: Principal
  /** The Authority, and the issuers of workloads that the policy trusts, by their addresses. */
  issuer(address: string): Issuer | undefined
  readonly authority: string | undefined
  users(): Users
  policy(): Policy
  /** Goes up with every change of the files: what was found out before is found out again. */
  generation(): number
  /** Credentials that held, by a keyed hash: no password and no token stays in memory. */
  readonly verified: LRUCache<string, Verified>
  /** The name of a credential in `verified`. */
  nameOf(credential: string): string
  /** Tells one password hash from another, and nothing else of it. The same on every process. */
  fingerprint(passwordHash: string): string
  readonly keyring: Keyring
  /** Checks of passwords under way, by the generation and that name: many requests with one password wait for one check. */
  readonly checking: Map<string, Promise<boolean>>
  close(): void
}

type Options = {
  mode: Auth['mode']
  authority?: { issuer: string; audience: string }
  htpasswdFile?: string
  policyFile?: string
  anonymousPull: readonly string[]
}

type Report = { info(about: object, text: string): void; warn(about: object, text: string): void }

/** Reads the files. Throws an Error in words where one cannot be used. Later changes that cannot be used are left out. */
export async function openAuth(options: Options, log: Report): Promise<Auth> {
  const { mode, authority, htpasswdFile, policyFile, anonymousPull } = options
  let users: Users = new Map()
  let policy = openPolicy
  let generation = 0
  let issuers = new Map<string, { audience: string; known: Issuer }>()
  const secret = randomBytes(32).toString('hex')
  const setPolicy = (read: Policy) => {
    policy = read
    // The Authority last: nothing in the policy changes what is asked of its tokens.
    const wanted = [...read.issuers, ...(authority ? [authority] : [])]
    issuers = new Map(
      wanted.map(({ issuer, audience }) => {
        const before = issuers.get(issuer)
        return [issuer, before?.audience === audience ? before : { audience, known: openIssuer(issuer, audience) }]
      }),
    )
  }
  setPolicy(openPolicy)
  const setUsers = (text: string) => {
    users = parseUsers(text)
  }
  const unwatch = [
    await follow(policyFile, 'POLICY_FILE', (text) => setPolicy(parsePolicy(text)), onChange),
    await follow(htpasswdFile, 'HTPASSWD_FILE', setUsers, onChange),
  ]
  function onChange(name: string, error: unknown) {
    generation++
    if (error === undefined) log.info({ setting: name }, 'read again')
    else log.warn({ error, setting: name }, 'the changed file cannot be used; still using what it was before')
  }
  return {
    mode,
    anonymous: mode === 'none' ? everyone : anonymousWith(anonymousPull),
    issuer: (address) => issuers.get(address)?.known,
    authority: authority?.issuer,
    users: () => users,
    policy: () => policy,
    generation: () => generation,
    verified: new LRUCache({ max: mostVerified }),
    nameOf: (credential) => hash('sha256', secret + credential, 'base64'),
    fingerprint: (passwordHash) => hash('sha256', `fingerprint ${passwordHash}`, 'base64url'),
    keyring: {},
    checking: new Map(),
    close() {
      for (const stop of unwatch) stop()
    },
  }
}

/** Reads a file now and whenever it changes; answers what ends that. */
async function follow(
  path: string | undefined,
  name: string,
  take: (text: string) => void,
  changed: (name: string, error?: unknown) => void,
): Promise<() => void> {
  if (path === undefined) return () => undefined
  const read = async () => take(await readFile(path, 'utf8'))
  await read().catch((cause) => {
    throw new Error(`${name} ${path} cannot be used: ${cause.message}`, { cause })
  })
  const again = () => {
    read().then(
      () => changed(name),
      (error) => changed(name, error),
    )
  }
  watchFile(path, { interval: checkMs, persistent: false }, again)
  return () => unwatchFile(path, again)
}
