import { askFor } from './answers.ts'
import { type Connection, jsonBody } from './connection.ts'

export type TokenAction = 'pull' | 'push' | 'overwrite' | 'delete'

/** A token that programs log in with. The token itself is told once, when it is made. Times are RFC 3339. */
export type ApiToken = {
  id: string
  name: string
  state: 'active' | 'expired' | 'revoked'
  /** Of the globs that match a repository, the longest decides. */
  grants: { glob: string; actions: TokenAction[] }[]
  admin: boolean
  createdBy: string
  createdAt: string
  expiresAt?: string
  lastUsedAt?: string
  revokedAt?: string
}

/** Globs over repositories, for each action. `expires`: `90d`, `12h`, a day or a time. */
export type NewApiToken = { name: string; admin?: boolean; expires?: string | undefined } & {
  [action in TokenAction]?: readonly string[]
}

type Cancellable = { signal?: AbortSignal | undefined }

/** The API tokens of a registry; it takes an administrator. `id`: its id, or the name of one that is not revoked. */
export type Tokens = {
  /** Those that hold first. */
  list(options?: Cancellable): Promise<ApiToken[]>
  /** Throws TOKEN_EXISTS. */
  create(token: NewApiToken, options?: Cancellable): Promise<{ token: string; info: ApiToken }>
  /** At once and everywhere. Throws TOKEN_UNKNOWN. */
  revoke(id: string, options?: Cancellable): Promise<ApiToken>
  /** Signs the short-lived tokens of /token with a new key from now on; answers its id. */
  rotateKey(options?: Cancellable): Promise<string>
}

export function tokensOf(connection: Connection): Tokens {
  return {
    async list({ signal } = {}) {
      return (await askFor<{ tokens: ApiToken[] }>(connection, 'tokens', { path: '/tokens', signal })).tokens
    },
    async create(token, { signal } = {}) {
      const call = { method: 'POST' as const, path: '/tokens', body: jsonBody(token), signal }
      const { token: secret, info } = await askFor<{ token: string; info: ApiToken }>(connection, 'token', call)
      return { token: secret, info }
    },
    async revoke(id, { signal } = {}) {
      const call = { method: 'DELETE' as const, path: `/tokens/${encodeURIComponent(id)}`, signal }
      return (await askFor<{ info: ApiToken }>(connection, 'info', call)).info
    },
    async rotateKey({ signal } = {}) {
      const call = { method: 'POST' as const, path: '/tokens/rotate-key', signal }
      return (await askFor<{ kid: string }>(connection, 'kid', call)).kid
    },
  }
}
