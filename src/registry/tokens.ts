import type { Action, Grant } from '../auth/access.ts'
import { newApiToken } from '../auth/api-token.ts'
import { ask, askRead } from '../db/client.ts'
import * as rows from '../db/tokens.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'

/** An API token as it is told to others. The token itself is in the answer that made it, and nowhere else. */
export type ApiToken = {
  id: string
  name: string
  state: 'active' | 'expired' | 'revoked'
  grants: { glob: string; actions: Action[] }[]
  admin: boolean
  createdBy: string
  createdAt: string
  expiresAt?: string
  lastUsedAt?: string
  revokedAt?: string
}

function tokenOf(row: rows.TokenRow): ApiToken {
  const { id, name, admin, createdBy, createdAt, expiresAt, revokedAt } = row
  const time = (key: 'expiresAt' | 'lastUsedAt' | 'revokedAt') => (row[key] ? { [key]: row[key].toISOString() } : {})
  const state = revokedAt ? 'revoked' : expiresAt && expiresAt.getTime() <= Date.now() ? 'expired' : 'active'
  return {
    ...{
      id,
      name,
      state,
      grants: row.grants as ApiToken['grants'],
      admin,
      createdBy,
      createdAt: createdAt.toISOString(),
    },
    ...{ ...time('expiresAt'), ...time('lastUsedAt'), ...time('revokedAt') },
  }
}

export type TokenRequest = {
  name: string
  grants: readonly Grant[]
  admin: boolean
  expiresAt: Date | undefined
  createdBy: string
}

/** Makes an API token, which is shown this once. Throws TOKEN_EXISTS. */
export async function createToken(deps: Deps, request: TokenRequest): Promise<{ token: string; info: ApiToken }> {
  const { token, hash } = newApiToken()
  const grants = request.grants.map(({ glob, actions }) => ({ glob, actions: [...actions] }))
  const row = await ask(deps.db, (sql) => rows.insertToken(sql, { ...request, grants, hash }))
  if (row) return { token, info: tokenOf(row) }
  throw new Failure('TOKEN_EXISTS', {
    detail: `${request.name} is the name of a token that was not revoked; revoke it first, or take another name`,
  })
}

/** Every token there ever was, those that hold first. */
export async function listTokens(deps: Deps): Promise<ApiToken[]> {
  return (await askRead(deps.db, rows.listTokens)).map(tokenOf)
}

/** Ends a token at once, on every process. Again, it changes nothing. Throws TOKEN_UNKNOWN. */
export async function revokeToken(deps: Deps, idOrName: string): Promise<ApiToken> {
  const row = await ask(deps.db, (sql) => rows.revokeToken(sql, idOrName))
  if (row) return tokenOf(row)
  throw new Failure('TOKEN_UNKNOWN', {
    detail: `there is no token ${JSON.stringify(idOrName.slice(0, 100))}: give its id, or the name of one that is not revoked`,
  })
}
