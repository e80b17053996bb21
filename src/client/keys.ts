import { askFor } from './answers.ts'
import { type Call, type Connection, jsonBody } from './connection.ts'

/**
 * A key that bundles are signed or verified with. `signing`: made by the registry, and new bundles are signed with it.
 * `verifying`: what it signed is taken. `expired`, `distrusted`: what it signed is not. `publicKey` is PEM; private
 * parts never leave the registry.
 */
export type Key = {
  /** `sha256:` and the hex SHA-256 of the public key (SPKI, DER). */
  keyid: string
  name: string
  state: 'signing' | 'verifying' | 'expired' | 'distrusted'
  own: boolean
  comment?: string
  publicKey: string
  createdAt: string
  expiresAt?: string
  retiredAt?: string
  distrustedAt?: string
}

type Cancellable = { signal?: AbortSignal | undefined }
/** `expires`: a time such as `2027-01-31T12:00:00Z`, or a day. */
type KeyOptions = { expires?: string | undefined; comment?: string | undefined }

/** The keys of a registry. `id`: a key id, or the name that a key in use has. */
export type Keys = {
  /** Every key, those in use first. */
  list(options?: Cancellable): Promise<Key[]>
  /** Throws KEY_UNKNOWN. */
  get(id: string, options?: Cancellable): Promise<Key>
  /** Makes a key that signs from now on. Throws KEY_EXISTS. */
  create(name: string, options?: KeyOptions & Cancellable): Promise<Key>
  /** Answers the successor. The old key signs no more; what it signed is taken until it expires. */
  rotate(id: string, options?: { expires?: string | undefined } & Cancellable): Promise<Key>
  /** Trusts another site's public key (PEM). Throws KEY_INVALID, KEY_EXISTS. */
  trust(name: string, publicKey: string, options?: KeyOptions & Cancellable): Promise<Key>
  /** Ends at once that a key is trusted and that it signs. */
  distrust(id: string, options?: Cancellable): Promise<Key>
}

export function keysOf(connection: Connection): Keys {
  const key = async (call: Call) => (await askFor<{ key: Key }>(connection, 'key', call)).key
  const path = (id: string, ...rest: string[]) => ['/keys', encodeURIComponent(id), ...rest].join('/')
  const get: Keys['get'] = (id, { signal } = {}) => key({ path: path(id), signal })
  return {
    get,
    async list({ signal } = {}) {
      return (await askFor<{ keys: Key[] }>(connection, 'keys', { path: '/keys', signal })).keys
    },
    create: (name, { signal, ...options } = {}) =>
      key({ method: 'POST', path: '/keys', body: jsonBody({ name, ...options }), signal }),
    async rotate(id, { signal, ...options } = {}) {
      // By key id: a name stands for the successor as soon as there is one, and a lost answer must not rotate that too.
      const { keyid } = await get(id, { signal })
      return key({ method: 'POST', path: path(keyid, 'rotate'), body: jsonBody(options), signal })
    },
    trust: (name, publicKey, { signal, ...options } = {}) =>
      key({ method: 'POST', path: '/keys/trusted', body: jsonBody({ name, publicKey, ...options }), signal }),
    distrust: (id, { signal } = {}) => key({ method: 'DELETE', path: path(id), signal }),
  }
}
