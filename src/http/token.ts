import type { Context } from 'hono'
import * as v from 'valibot'
import { actionsOn, type Principal } from '../auth/access.ts'
import { TokenRefused } from '../auth/issuer.ts'
import { rightsOf } from '../auth/policy.ts'
import { type Access, accessSeconds, refreshSeconds, signToken, verifyToken } from '../auth/registry-token.ts'
import { grantedOf, parseScopes } from '../auth/scope.ts'
import { isSameSecret } from '../auth/secrets.ts'
import type { Deps } from '../deps.ts'
import { Failure } from '../errors.ts'
import { parseName } from '../oci/name.ts'
import { readWhole } from '../registry/body.ts'
import { checkingKey, signingKey } from '../registry/token-keys.ts'
import { principalOf } from './access.ts'
import { identifyBy, principalOfToken, type RegistryClaims } from './identify.ts'
import type { Answer } from './packs/answers.ts'
import type { Env, Routes } from './routes.ts'
import { bodyOf } from './v2/request.ts'

// Where clients exchange what they have for a token that is good for one purpose and a few minutes. Whoever shows
// nothing gets a token too, for what everybody may do; what is asked and may not be done is left out, and is no error.
// Source: distribution's token specification, and its OAuth2 form.

/** The query of GET /token. What clients send beyond it is let be. */
export const tokenQuery = v.object({
  scope: v.optional(v.string()),
  offline_token: v.optional(v.string()),
  service: v.optional(v.string()),
  client_id: v.optional(v.string()),
  account: v.optional(v.string()),
})

export const grantedAnswer = v.object({
  token: v.pipe(v.string(), v.description('A bearer token for /v2, and for the packs of the repositories it is for.')),
  access_token: v.pipe(v.string(), v.description('The same.')),
  token_type: v.literal('Bearer'),
  expires_in: v.pipe(v.number(), v.description('For how long it is good, in seconds.')),
  issued_at: v.string(),
  scope: v.pipe(v.string(), v.description('What of the scopes that were asked for is granted; it may be nothing.')),
  refresh_token: v.optional(v.string()),
})

const mostFormBytes = 64 * 1024

export function addTokenRoutes(routes: Routes, deps: Deps): void {
  routes.get('/token', async (c) => {
    const scopes = parseScopes(c.req.queries('scope') ?? [])
    const refreshing = c.req.query('offline_token') === 'true'
    return answer(deps, exchangeable(principalOf(c)), scopes, refreshing)
  })

  routes.post('/token', async (c) => {
    const form = await formOf(c)
    const scopes = parseScopes(form.getAll('scope'))
    const refreshing = form.get('access_type') === 'offline'
    const refreshToken = form.get('refresh_token')
    const kind = form.get('grant_type')
    if (kind === 'refresh_token' && refreshToken !== null)
      return answer(deps, await refreshed(deps, refreshToken), scopes, true, refreshToken)
    if (kind === 'password') {
      const credential = Buffer.from(`${form.get('username') ?? ''}:${form.get('password') ?? ''}`)
      return answer(deps, await byForm(c, deps, `Basic ${credential.toString('base64')}`), scopes, refreshing)
    }
    throw new Failure('REQUEST_INVALID', { detail: 'grant_type is password or refresh_token' })
  })
}

/** A token of /token is not to be exchanged for one that lives longer, or may more; it may come as a password too. */
function exchangeable(principal: Principal): Principal {
  if (principal.shown !== 'registry token') return principal
  throw new Failure('UNAUTHORIZED', { detail: 'a token of this registry is not exchanged for another' })
}

async function byForm(c: Context<Env>, deps: Deps, authorization: string): Promise<Principal> {
  const { gate } = c.env
  if (!gate || deps.auth.mode === 'none') return deps.auth.anonymous
  return exchangeable(await identifyBy(deps, gate.limits, authorization, gate.addressOf(c.env.incoming)))
}

async function formOf(c: Context<Env>): Promise<URLSearchParams> {
  const bytes = await readWhole(bodyOf(c), mostFormBytes)
  if (bytes) return new URLSearchParams(bytes.toString())
  throw new Failure('CONTENT_TOO_LARGE', { detail: `this body may have at most ${mostFormBytes} bytes` })
}

async function answer(
  deps: Deps,
  principal: Principal,
  scopes: ReturnType<typeof parseScopes>,
  refreshing: boolean,
  refreshToken?: string,
): Promise<Response> {
  const key = await signingKey(deps)
  const { kind, name, tokenId, listing } = principal
  const access = scopes.flatMap((scope) => accessOf(principal, scope))
  const lists = access.some(({ type }) => type === 'registry') && listing
  const claims: RegistryClaims = {
    ...{ kind, access: access.filter(({ type }) => type === 'repository') },
    ...(lists ? { listing: lists.patterns.map(({ glob, actions }) => ({ glob, actions: [...actions] })) } : {}),
    ...(tokenId === undefined ? {} : { tid: tokenId }),
  }
  const token = await signToken(key, 'access', name, claims, accessSeconds)
  const refresh = refreshToken ?? (refreshing ? await newRefreshToken(deps, principal) : undefined)
  const body: Answer<typeof grantedAnswer> = {
    ...{ token, access_token: token, token_type: 'Bearer' as const, expires_in: accessSeconds },
    issued_at: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
    scope: access.map(({ type, name, actions }) => `${type}:${name}:${actions.join(',')}`).join(' '),
    ...(refresh === undefined ? {} : { refresh_token: refresh }),
  }
  return Response.json(body, { headers: { 'cache-control': 'no-store' } })
}

/** What of a scope is granted; nothing: it is left out. */
function accessOf(principal: Principal, { type, name, actions }: ReturnType<typeof parseScopes>[number]): Access[] {
  if (type === 'registry' && name === 'catalog') return [{ type, name, actions: ['*'] }]
  const repository = type === 'repository' ? parseName(name) : undefined
  if (!repository) return []
  const granted = grantedOf(actions, actionsOn(principal, repository))
  return granted.length === 0 ? [] : [{ type: 'repository', name: repository, actions: granted }]
}

type RefreshClaims = { tid?: string; user?: string }

/**
 * A token to get others with, for those who can be asked again whether they still may: users of the htpasswd file and API
 * tokens. Whoever came with a token of the Authority gets the next one there.
 */
async function newRefreshToken(deps: Deps, { kind, name, tokenId }: Principal): Promise<string | undefined> {
  const hash = deps.auth.users().get(name)
  const claims: RefreshClaims | undefined =
    tokenId !== undefined
      ? { tid: tokenId }
      : kind === 'user' && hash !== undefined
        ? { user: deps.auth.fingerprint(hash) }
        : undefined
  if (!claims) return undefined
  return signToken(await signingKey(deps), 'refresh', name, claims, refreshSeconds)
}

/** Who is behind a refresh token, with the rights of now. Throws UNAUTHORIZED. */
async function refreshed(deps: Deps, token: string): Promise<Principal> {
  const claims = await verifyToken(token, 'refresh', (kid) => checkingKey(deps, kid)).catch((cause) => {
    if (cause instanceof TokenRefused) throw new Failure('UNAUTHORIZED', { detail: cause.message, cause })
    throw cause
  })
  const { sub, tid, user } = claims as typeof claims & RefreshClaims
  if (tid !== undefined) {
    const live = await deps.together.apiToken.load({ id: tid })
    if (live) return principalOfToken(live)
  } else if (deps.auth.mode === 'htpasswd') {
    const hash = deps.auth.users().get(sub)
    if (hash !== undefined && isSameSecret(user ?? '', deps.auth.fingerprint(hash))) {
      const rights = rightsOf(deps.auth.policy(), { issuer: undefined, claims: { sub } })
      return { name: sub, kind: 'user', shown: 'credential', ...rights, listing: rights.grants }
    }
  }
  throw new Failure('UNAUTHORIZED', { detail: 'the login behind this refresh token holds no more; log in again' })
}
