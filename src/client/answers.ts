import { ask, type Call, type Connection } from './connection.ts'
import { PacksError } from './failure.ts'

const isObject = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value)
const checks = {
  object: isObject,
  list: (value: unknown) => Array.isArray(value) && value.every(isObject),
  text: (value: unknown) => typeof value === 'string',
  number: (value: unknown) => typeof value === 'number',
  truth: (value: unknown) => typeof value === 'boolean',
}

/** What the fields are by which an answer is known. Lists are of objects. */
const fields = {
  changed: 'truth',
  decisions: 'list',
  deleted: 'truth',
  delivered: 'truth',
  deliveries: 'list',
  delivery: 'object',
  dependencies: 'list',
  dependents: 'list',
  events: 'list',
  export: 'object',
  exports: 'list',
  findings: 'list',
  hold: 'object',
  holds: 'list',
  import: 'object',
  imports: 'list',
  info: 'object',
  intact: 'truth',
  job: 'object',
  jobs: 'list',
  key: 'object',
  keys: 'list',
  kid: 'text',
  kinds: 'list',
  manifestDigest: 'text',
  mirror: 'object',
  mirrors: 'list',
  pack: 'object',
  packs: 'list',
  parity: 'object',
  policies: 'list',
  policy: 'object',
  problems: 'list',
  quota: 'object',
  quotas: 'list',
  redelivered: 'number',
  referrers: 'list',
  released: 'truth',
  removals: 'list',
  retried: 'number',
  run: 'object',
  runs: 'list',
  secret: 'text',
  token: 'text',
  tokens: 'list',
  versions: 'list',
  webhook: 'object',
  webhooks: 'list',
} as const satisfies Record<string, keyof typeof checks>
export type Field = keyof typeof fields

/** Asks for JSON, an object with this field, which is what it is to be. Throws PacksError. */
export async function askFor<T>(connection: Connection, field: Field, call: Call): Promise<T> {
  const { bytes } = await ask(connection, call)
  const object = objectIn(bytes)
  if (object && checks[fields[field]](object[field])) return object as T
  throw notOurs(connection, call)
}

/** What answered is something else: a login page, another program. `why`: in what its answer is not as it should be. */
export function notOurs({ base }: Connection, { path }: Call, why?: PacksError): PacksError {
  const words = why ? ` (${why.message})` : ''
  return new PacksError(
    'ANSWER_INVALID',
    `${base}${path} does not answer as a packs registry does${words}; is the url right?`,
    why ? { cause: why } : {},
  )
}

export function objectIn(bytes: Buffer): Record<string, unknown> | undefined {
  try {
    const value = JSON.parse(bytes.toString())
    return typeof value === 'object' && value !== null ? value : undefined
  } catch {
    return undefined
  }
}
