import { isIP } from 'node:net'
import { resolve } from 'node:path'
import * as v from 'valibot'
import { isGlob } from './auth/glob.ts'
import { isIssuer } from './auth/policy.ts'
import { comes } from './cron.ts'

const text = v.pipe(v.string(), v.trim(), v.minLength(1, 'must not be empty'))
const wholeNumber = (least: number, most: number) =>
  v.pipe(
    v.string(),
    v.regex(/^\d+$/, 'must be a whole number'),
    v.transform(Number),
    v.minValue(least, `must be at least ${least}`),
    v.maxValue(most, `must be at most ${most}`),
  )

const units: Readonly<Record<string, number>> = { s: 1, m: 60, h: 60 * 60, d: 24 * 60 * 60 }

/** A time such as 90m, in seconds. */
const duration = (leastSeconds: number, mostDays: number) =>
  v.pipe(
    v.string(),
    v.regex(/^\d{1,9}[smhd]$/, 'must be a number with its unit: 1s, 90m, 24h or 7d'),
    v.transform((written) => Number(written.slice(0, -1)) * (units[written.slice(-1)] ?? 1)),
    v.minValue(leastSeconds, `must be at least ${leastSeconds}s`),
    v.maxValue(mostDays * 24 * 60 * 60, `must be at most ${mostDays}d`),
  )
const oneOf = <const T extends readonly [string, ...string[]]>(...choices: T) =>
  v.picklist(choices, `must be one of ${choices.join(', ')}`)

const byteUnits: Record<string, number> = { '': 1, K: 1e3, M: 1e6, G: 1e9, Ki: 1024, Mi: 1024 ** 2, Gi: 1024 ** 3 }

/** Bytes a second, written as 50MB, 50MB/s or 8MiB; 0: no limit. Undefined where it is none. */
export function bytesPerSecond(written: string): number | undefined {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?) ?([KMG]i?)?B?(?:\/s)?$/.exec(written) ?? []
  return number === undefined ? undefined : Math.round(Number(number) * (byteUnits[unit] ?? 1))
}

const rate = v.pipe(
  v.string(),
  v.check((written) => bytesPerSecond(written) !== undefined, 'must be bytes a second, such as 50MB, 500KB or 0'),
  v.transform((written) => bytesPerSecond(written) ?? 0),
)
const cronOrOff = v.pipe(
  v.string(),
  v.regex(/^(?:off|[\d*/,A-Z?L#-]+(?: [\d*/,A-Z?L#-]+){4})$/i, 'must be five fields of cron, in UTC, or off'),
  v.check(
    (written) => written === 'off' || comes(written),
    'must be five fields of cron, in UTC, of a time that comes, or off',
  ),
)

/** Whether the driver can take the address apart. It may name several servers (`host:1,host:2`): then by the first. */
function isDatabaseUrl(written: string): boolean {
  const [, scheme = '', servers = '', rest = ''] = /^(\w+:\/\/)([^/?]*)(.*)$/s.exec(written) ?? []
  const at = servers.lastIndexOf('@') + 1
  const [first = ''] = servers.slice(at).split(',')
  try {
    const { username, password } = new URL(`${scheme}${servers.slice(0, at)}${first}${rest}`)
    decodeURIComponent(username + password)
    return true
  } catch {
    return false
  }
}

/** Words separated by commas or spaces. */
function wordsOf(written: string): string[] {
  return written.split(/[\s,]+/).filter(Boolean)
}

/** An address, or a network as address/bits. */
function isNetwork(written: string): boolean {
  const [address = '', bits, ...more] = written.split('/')
  const version = isIP(address)
  if (version === 0 || more.length > 0) return false
  return bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (version === 4 ? 32 : 128))
}

/** One setting: its default as it would be written, what it means, and how its text becomes a value. */
type Setting = { fallback?: string; help: string; secret?: boolean; schema: v.GenericSchema<string, unknown> }

/**
 * Every setting, by the name it has in the environment. `serve` takes each as a flag too: `DATA_DIR` is `--data-dir`.
 * A flag wins over the environment, and that over the default.
 */
export const settings = {
  HOST: { fallback: '127.0.0.1', help: 'address to listen on', schema: text },
  PORT: { fallback: '5000', help: 'port to listen on; 0 takes a free one', schema: wholeNumber(0, 65535) },
  DATA_DIR: { fallback: './data', help: 'folder for the embedded database and, by default, the blobs', schema: text },
  DATABASE_URL: {
    help: 'postgres://user:password@host/database (15 or newer); unset: an embedded PostgreSQL under DATA_DIR',
    secret: true,
    schema: v.pipe(
      text,
      v.regex(/^postgres(?:ql)?:\/\//, 'must start with postgres://'),
      v.check(
        isDatabaseUrl,
        'must be an address such as postgres://user:password@host/database; in user and password, write "@", "/", ":", "?", "#" and "%" as %40, %2F, %3A, %3F, %23 and %25',
      ),
    ),
  },
  DATABASE_POOL: { fallback: '12', help: 'database connections per process', schema: wholeNumber(2, 500) },
  BLOB_STORE: {
    help: 'file:/folder or s3://bucket/prefix?endpoint=…&region=…&pathStyle=true; unset: DATA_DIR/blobs',
    schema: v.pipe(
      text,
      v.regex(/^(?:file:|s3:\/\/)/, 'must start with file: or s3://'),
      v.regex(/^(?:s3:|file:(?:\/\/)?\/(?!\/))/, 'must name a folder by its absolute path: file:/folder'),
    ),
  },
  BLOB_REDIRECT: {
    fallback: 'true',
    help: 'send clients to S3 for large blobs (307 to a short-lived address) where the store can',
    schema: v.pipe(
      oneOf('true', 'false'),
      v.transform((value) => value === 'true'),
    ),
  },
  PROCESSES: { fallback: '1', help: 'processes that serve requests', schema: wholeNumber(1, 256) },
  WORKER: {
    fallback: 'true',
    help: 'run jobs (garbage collection, imports, mirrors) beside serving, in one of the processes; false: run "packs worker" for them',
    schema: v.pipe(
      oneOf('true', 'false'),
      v.transform((value) => value === 'true'),
    ),
  },
  WORKER_PORT: {
    help: 'where "packs worker" answers /healthz, /readyz and /metrics, on HOST; 0 takes a free one; unset: nowhere',
    schema: wholeNumber(0, 65535),
  },
  WORKER_CONCURRENCY: { fallback: '4', help: 'jobs that a worker runs at a time', schema: wholeNumber(1, 100) },
  GC_GRACE: {
    fallback: '24h',
    help: 'how long content that nothing refers to is kept, from the last push or HEAD of it: 1s, 90m, 24h, 7d; a client has so long between a blob and its manifest',
    schema: duration(1, 365),
  },
  GC_RATE: {
    fallback: '6000',
    help: 'rows and objects a second that garbage collection goes through, so that serving does not suffer; 0: as many as it can',
    schema: wholeNumber(0, 1_000_000),
  },
  SCRUB_SCHEDULE: {
    fallback: '0 3 * * 0',
    help: 'when everything that is stored is read and checked against its digest: five fields of cron, in UTC; off: never by itself',
    schema: cronOrOff,
  },
  SCRUB_RATE: {
    fallback: '50MB',
    help: 'bytes a second that a scrub reads, so that serving does not suffer; 0: as many as it can',
    schema: rate,
  },
  TLS_CERT_FILE: {
    help: 'certificate chain (PEM); with TLS_KEY_FILE: serve https; read again on change',
    schema: text,
  },
  TLS_KEY_FILE: { help: 'private key (PEM)', schema: text },
  LOG_LEVEL: {
    fallback: 'info',
    help: 'trace, debug (every request), info (writes and failures), warn, error or silent',
    schema: oneOf('trace', 'debug', 'info', 'warn', 'error', 'silent'),
  },
  BUNDLE_VERIFY: {
    help: 'signatures of imported bundles: always, if-present or never; unset: always once a key is trusted or made here',
    schema: oneOf('always', 'if-present', 'never'),
  },
  AUTH: {
    help: 'who is let in: htpasswd (a file of users), oidc (tokens of AUTHORITY_ISSUER), or none: everyone may do everything, which unset means too, but only on a loopback address',
    schema: oneOf('none', 'htpasswd', 'oidc'),
  },
  AUTHORITY_ISSUER: {
    help: 'OpenID Connect issuer whose access tokens are taken, such as https://id.example.org/realms/main',
    schema: v.pipe(text, v.check(isIssuer, 'must be an https address without a query (http only on this machine)')),
  },
  AUTHORITY_AUDIENCE: {
    help: 'what has to stand in "aud" of those tokens: the name of this registry there',
    schema: text,
  },
  HTPASSWD_FILE: { help: 'users and passwords as "htpasswd -B" writes them; read again on change', schema: text },
  POLICY_FILE: {
    help: 'who may do what, in JSON ("packs policy check" checks it); read again on change; unset: who is logged in may do everything',
    schema: text,
  },
  KEY_ENCRYPTION_FILE: {
    help: 'file with a secret ("openssl rand -hex 32") under which private keys are encrypted in the database; further lines open older ones; unset: they are not',
    schema: text,
  },
  ANONYMOUS_PULL: {
    help: 'repositories that everybody may read, by globs separated by commas: packs/*, mirror/**',
    schema: v.pipe(
      text,
      v.transform(wordsOf),
      v.everyItem(isGlob, 'must be globs such as packs/* or mirror/**, with three wildcards at most'),
    ),
  },
  PUBLIC_URL: {
    help: 'address that clients know this registry by, for challenges; unset: the one they ask',
    schema: v.pipe(
      text,
      v.check((value) => /^https?:\/\/[^/?#@\s"]+\/?$/.test(value), 'must be http(s)://host[:port], without a path'),
      v.transform((value) => value.replace(/\/$/, '')),
    ),
  },
  TRUSTED_PROXIES: {
    help: 'addresses or networks (10.0.0.0/8) of proxies whose X-Forwarded-For, -Proto and -Host are believed, separated by commas',
    schema: v.pipe(
      text,
      v.transform(wordsOf),
      v.everyItem(isNetwork, 'must be addresses such as 10.0.0.1 or 10.0.0.0/8'),
    ),
  },
  UPLOADS_OPEN: {
    fallback: '1000',
    help: 'uploads in chunks that each user, token or address may have under way at a time; 0: as many as they like',
    schema: wholeNumber(0, 1_000_000),
  },
  UPLOADS_STAGED: {
    fallback: '0',
    help: 'bytes that these may have sent together before they are whole; 0: as many as they like',
    schema: wholeNumber(0, Number.MAX_SAFE_INTEGER),
  },
  RATE_LIMIT: {
    fallback: '0',
    help: 'requests a minute that each user, token or address has on each server, over all of its processes; 0: as many as they like',
    schema: wholeNumber(0, 1_000_000),
  },
} as const satisfies Record<string, Setting>

export type SettingName = keyof typeof settings
type Values = { [K in SettingName]?: v.InferOutput<(typeof settings)[K]['schema']> }

/** The effective settings. Paths are absolute; what is not set and has no default is absent. */
export type Config = {
  host: string
  port: number
  dataDir: string
  databaseUrl?: string
  databasePool: number
  /** `file:/folder` or `s3://…` */
  blobStore: string
  blobRedirect: boolean
  processes: number
  /** Whether serving includes running jobs. */
  worker: boolean
  workerConcurrency: number
  /** Where a worker of its own answers probes; absent: it listens nowhere. */
  workerPort?: number
  /** How long content that nothing refers to is left alone. */
  gcGraceSeconds: number
  /** Rows and objects a second that the collector goes through; 0: no limit. */
  gcRate: number
  /** Five fields of cron, in UTC; absent: never by itself. */
  scrubSchedule?: string
  /** Bytes a second that a scrub reads; 0: no limit. */
  scrubRate: number
  tls?: { certFile: string; keyFile: string }
  logLevel: string
  /** What a bundle's signature has to be for an import; absent: `always` as soon as a key was ever trusted or made. */
  bundleVerify?: 'always' | 'if-present' | 'never'
  auth: AuthConfig
  /** Requests a minute for each principal or address, on each server; 0: no limit. */
  rateLimit: number
  uploadCaps: UploadCaps
  keyEncryptionFile?: string
}

/** What each user, token or address may have under way in uploads that have a chunk. 0: no limit. */
export type UploadCaps = { open: number; stagedBytes: number }

export type AuthConfig = {
  mode: 'none' | 'htpasswd' | 'oidc'
  /** Where access tokens come from; always there with `oidc`. */
  authority?: { issuer: string; audience: string }
  /** Always there with `htpasswd`. */
  htpasswdFile?: string
  policyFile?: string
  anonymousPull: readonly string[]
  publicUrl?: string
  trustedProxies: readonly string[]
}

/** Settings that cannot be used: every problem at once, one a line, each with the setting's name. */
export class ConfigError extends Error {
  override name = 'ConfigError'
}

/**
 * Reads the settings, whole, from texts by name (`process.env`, then flags over it).
 * Throws ConfigError that lists every bad one.
 */
export function readConfig(source: Record<string, string | undefined>): Config {
  const problems: string[] = []
  const values: Record<string, unknown> = {}
  for (const [name, setting] of Object.entries<Setting>(settings)) {
    const given = source[name] === '' ? undefined : source[name]
    const written = given ?? setting.fallback
    if (written === undefined) continue
    const result = v.safeParse(setting.schema, written)
    const shown = setting.secret ? '(hidden)' : JSON.stringify(written)
    if (result.success) values[name] = result.output
    else problems.push(`${name}=${shown}: ${result.issues[0].message}`)
  }
  const config = problems.length === 0 ? assemble(values as Values, problems) : undefined
  if (!config || problems.length > 0)
    throw new ConfigError(`These settings cannot be used:\n  ${problems.join('\n  ')}\nSee "packs config --help".`)
  return config
}

function assemble(values: Values, problems: string[]): Config {
  const dataDir = resolve(values.DATA_DIR ?? './data')
  const { TLS_CERT_FILE: certFile, TLS_KEY_FILE: keyFile } = values
  if ((certFile === undefined) !== (keyFile === undefined))
    problems.push('TLS_CERT_FILE and TLS_KEY_FILE: set both, or neither')
  const host = values.HOST ?? '127.0.0.1'
  if (!isLoopback(host) && values.AUTH === undefined)
    problems.push(
      `HOST=${JSON.stringify(host)}: everyone who can reach that address could push and delete. ` +
        'Listen on 127.0.0.1, set AUTH=htpasswd or AUTH=oidc, or AUTH=none if that is meant',
    )
  return {
    host,
    port: values.PORT ?? 5000,
    dataDir,
    ...(values.DATABASE_URL ? { databaseUrl: values.DATABASE_URL } : {}),
    databasePool: values.DATABASE_POOL ?? 12,
    blobStore: values.BLOB_STORE ?? `file:${dataDir}/blobs`,
    blobRedirect: values.BLOB_REDIRECT ?? true,
    processes: values.PROCESSES ?? 1,
    worker: values.WORKER ?? true,
    workerConcurrency: values.WORKER_CONCURRENCY ?? 4,
    ...(values.WORKER_PORT === undefined ? {} : { workerPort: values.WORKER_PORT }),
    gcGraceSeconds: values.GC_GRACE ?? 24 * 60 * 60,
    gcRate: values.GC_RATE ?? 6_000,
    ...(values.SCRUB_SCHEDULE && values.SCRUB_SCHEDULE !== 'off' ? { scrubSchedule: values.SCRUB_SCHEDULE } : {}),
    scrubRate: values.SCRUB_RATE ?? 50_000_000,
    ...(certFile && keyFile ? { tls: { certFile: resolve(certFile), keyFile: resolve(keyFile) } } : {}),
    logLevel: values.LOG_LEVEL ?? 'info',
    ...(values.BUNDLE_VERIFY ? { bundleVerify: values.BUNDLE_VERIFY } : {}),
    auth: assembleAuth(values, problems),
    rateLimit: values.RATE_LIMIT ?? 0,
    ...(values.KEY_ENCRYPTION_FILE ? { keyEncryptionFile: resolve(values.KEY_ENCRYPTION_FILE) } : {}),
    uploadCaps: { open: values.UPLOADS_OPEN ?? 1000, stagedBytes: values.UPLOADS_STAGED ?? 0 },
  }
}

/** A setting that would have no effect is a mistake about who is let in, so it is refused. */
function assembleAuth(values: Values, problems: string[]): AuthConfig {
  const { AUTH: mode = 'none', AUTHORITY_ISSUER: issuer, AUTHORITY_AUDIENCE: audience, HTPASSWD_FILE: file } = values
  if (mode === 'oidc' && (!issuer || !audience))
    problems.push('AUTH="oidc": set AUTHORITY_ISSUER and AUTHORITY_AUDIENCE too')
  if (mode === 'htpasswd' && !file) problems.push('AUTH="htpasswd": set HTPASSWD_FILE too')
  const idle = Object.entries({
    AUTHORITY_ISSUER: mode !== 'oidc',
    AUTHORITY_AUDIENCE: mode !== 'oidc',
    HTPASSWD_FILE: mode !== 'htpasswd',
    POLICY_FILE: mode === 'none',
    ANONYMOUS_PULL: mode === 'none',
  }).filter(([name, hasNoEffect]) => hasNoEffect && values[name as SettingName] !== undefined)
  for (const [name] of idle) problems.push(`${name}: has no effect with AUTH=${mode}`)
  return {
    mode,
    ...(issuer && audience ? { authority: { issuer, audience } } : {}),
    ...(file ? { htpasswdFile: resolve(file) } : {}),
    ...(values.POLICY_FILE ? { policyFile: resolve(values.POLICY_FILE) } : {}),
    anonymousPull: values.ANONYMOUS_PULL ?? [],
    ...(values.PUBLIC_URL ? { publicUrl: values.PUBLIC_URL } : {}),
    trustedProxies: values.TRUSTED_PROXIES ?? [],
  }
}

/** Whether only this machine can reach the address. */
export function isLoopback(host: string): boolean {
  if (host === 'localhost' || host === '::1') return true
  return isIP(host) === 4 && host.startsWith('127.')
}

/** The settings as they would be written, for `packs config`; passwords are masked. */
export function describeSettings(source: Record<string, string | undefined>): { name: SettingName; value: string }[] {
  return (Object.entries(settings) as [SettingName, Setting][]).map(([name, setting]) => {
    const value = source[name] || setting.fallback || ''
    return { name, value: maskPasswords(value) }
  })
}

/** Hides the password of an address such as `postgres://user:secret@host/db`. */
function maskPasswords(value: string): string {
  return value.replace(/(:\/\/[^:@/?]*:)[^@/]*@/, '$1***@')
}
