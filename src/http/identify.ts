import type { IncomingMessage } from 'node:http'
import { amongEverybody, compileGrants, type Grant, type Principal } from '../auth/access.ts'
import { hashOf, isApiToken } from '../auth/api-token.ts'
import { TokenRefused } from '../auth/issuer.ts'
import { isPassword } from '../auth/passwords.ts'
import { rightsOf } from '../auth/policy.ts'
import { type Access, issuerOf, service, verifyToken } from '../auth/registry-token.ts'
import { askRelaxed } from '../db/client.ts'
import { type LiveToken, noteUse } from '../db/tokens.ts'
import type { Deps } from '../deps.ts'
import { Failure, unavailable } from '../errors.ts'
import { checkingKey } from '../registry/token-keys.ts'
import type { Limits } from './limits.ts'

// Who asks, from the Authorization field: a name and password (htpasswd; or as the password an API token or an access
// token, since that is all that most clients let a person give), or as a bearer an API token, an access token of the
// Authority, or a token of /token. What held is remembered for a while under a keyed hash, so that checking a password or
// a signature is not paid on every request. That an API token is not revoked is asked of the database each time.

/** How long what was found out about a credential is believed at the most. */
const rememberMs = 300_000

/** What is remembered of a credential; undefined: it has to be looked at. */
export function remembered(deps: Deps, authorization: string): Principal | undefined {
  const { verified, generation } = deps.auth
  const found = verified.get(deps.auth.nameOf(authorization))
  return found && found.until > Date.now() && found.generation === generation() ? found.principal : undefined
}

/**
 * Who asks. Throws UNAUTHORIZED in words where what they show does not hold, TOOMANYREQUESTS where they have shown too
 * much of that, UNAVAILABLE where it cannot be told now.
 */
export async function identify(
  deps: Deps,
  limits: Limits,
  { headers }: Pick<IncomingMessage, 'headers'>,
  address: string,
): Promise<Principal> {
  if (deps.auth.mode === 'none' || headers.authorization === undefined) return deps.auth.anonymous
  return identifyBy(deps, limits, headers.authorization, address)
}

/** The same for a value of the Authorization field. */
export async function identifyBy(
  deps: Deps,
  limits: Limits,
  authorization: string,
  address: string,
): Promise<Principal> {
  const known = remembered(deps, authorization)
  if (known) return known.tokenId === undefined ? known : requireLive(deps, known)
  const [scheme = '', credential = ''] = authorization.split(/ +/, 2)
  if (/^bearer$/i.test(scheme)) return byToken(deps, limits, credential, authorization, address)
  if (!/^basic$/i.test(scheme)) throw wrong('the Authorization field is neither Basic nor Bearer')
  const text = Buffer.from(credential, 'base64').toString()
  const colon = text.indexOf(':')
  if (colon < 0) throw wrong('the Authorization field is not "user:password" in base64')
  const [name, password] = [text.slice(0, colon), text.slice(colon + 1)]
  if (isApiToken(password) || (deps.auth.mode === 'oidc' && password.startsWith('eyJ')))
    return byToken(deps, limits, password, authorization, address)
  return byPassword(deps, limits, { name, password }, authorization, address)
}

async function byPassword(
  deps: Deps,
  limits: Limits,
  { name, password }: { name: string; password: string },
  authorization: string,
  address: string,
): Promise<Principal> {
  const { auth } = deps
  const generation = auth.generation()
  // A check that began before the users changed is none for whoever comes after that.
  const place = `${generation} ${auth.nameOf(authorization)}`
  const check = () => limits.inTurn(address, () => isPassword(auth.users(), name, password))
  const checking = auth.checking.get(place) ?? check().finally(() => auth.checking.delete(place))
  auth.checking.set(place, checking)
  if (!(await checking)) throw wrong('wrong user or password')
  const rights = rightsOf(auth.policy(), { issuer: undefined, claims: { sub: name } })
  const principal: Principal = { name, kind: 'user', shown: 'credential', ...rights, listing: rights.grants }
  return remember(deps, authorization, principal, rememberMs, generation)
}

async function byToken(
  deps: Deps,
  limits: Limits,
  token: string,
  authorization: string,
  address: string,
): Promise<Principal> {
  if (isApiToken(token)) {
    await limits.requirePatience(address)
    const live = await deps.together.apiToken.load({ hash: hashOf(token).toString('hex') })
    if (!live) {
      await limits.noteFailure(address)
      throw wrong('this API token does not exist, has expired or was revoked')
    }
    used(deps, live)
    return remember(deps, authorization, principalOfToken(live), rememberMs, deps.auth.generation())
  }
  const from = issuerOf(token)
  if (from === undefined) throw wrong('the token is none that this registry knows')
  const generation = deps.auth.generation()
  try {
    const { principal, exp } = await (from === service ? ofRegistry(deps, token) : ofIssuer(deps, from, token))
    const left = Math.min(rememberMs, exp * 1000 - Date.now())
    return remember(deps, authorization, principal, left, generation)
  } catch (error) {
    if (error instanceof TokenRefused) throw wrong(error.message, error)
    if (error instanceof Failure) throw error
    throw unavailable('authority', error, 5)
  }
}

type Found = { principal: Principal; exp: number }

/** A token that /token gave. It names what it is for; behind it may stand an API token that was revoked since. */
async function ofRegistry(deps: Deps, token: string): Promise<Found> {
  const claims = await verifyToken(token, 'access', (kid) => checkingKey(deps, kid))
  const { access, listing, kind, tid } = claims as typeof claims & RegistryClaims
  const principal: Principal = {
    ...{ name: claims.sub, kind, shown: 'registry token', admin: false },
    grants: compileGrants(access.map(({ name, actions }) => ({ glob: name, actions: actions as Grant['actions'] }))),
    listing: listing && compileGrants(listing),
    ...(tid === undefined ? {} : { tokenId: tid }),
  }
  return { principal: tid === undefined ? principal : await requireLive(deps, principal), exp: claims.exp }
}

/** What stands in a token of /token. `listing`: all grants, where it was asked for with the scope of the catalog. */
export type RegistryClaims = {
  access: Access[]
  listing?: Grant[]
  kind: Principal['kind']
  tid?: string
}

/** A token of the Authority, or of an issuer of workloads that the policy trusts. */
async function ofIssuer(deps: Deps, from: string, token: string): Promise<Found> {
  const { auth } = deps
  const issuer = auth.issuer(from)
  if (!issuer) throw new TokenRefused('the token is from an issuer that this registry does not trust')
  const claims = await issuer.verify(token)
  const isAuthority = from === auth.authority
  const rights = rightsOf(
    auth.policy(),
    { issuer: isAuthority ? undefined : from, claims },
    isAuthority ? scopesOf(claims.scope ?? claims.scp) : undefined,
  )
  const name = isAuthority ? String(claims.sub) : `${from} ${claims.sub}`
  const principal: Principal = {
    ...{ name, kind: isAuthority ? 'authority' : 'workload', shown: 'credential' },
    ...rights,
    listing: rights.grants,
  }
  return { principal, exp: Number(claims.exp) }
}

/** The scopes in a claim, which is text or a list of texts; what is neither lets do nothing. */
function scopesOf(claim: unknown): string[] {
  const words: unknown[] = typeof claim === 'string' ? claim.split(' ') : Array.isArray(claim) ? claim : []
  return words.filter((word) => typeof word === 'string')
}

export function principalOfToken({ id, name, grants, admin }: LiveToken): Principal {
  const compiled = compileGrants(grants as readonly Grant[])
  return { name, kind: 'token', shown: 'credential', grants: compiled, listing: compiled, admin, tokenId: id }
}

/** Throws UNAUTHORIZED where the API token behind a principal holds no more. */
export async function requireLive(deps: Deps, principal: Principal): Promise<Principal> {
  const live = await deps.together.apiToken.load({ id: principal.tokenId ?? '' })
  if (!live) throw wrong('this API token has expired or was revoked')
  used(deps, live)
  return principal
}

/** When it was last used is a help to people, and worth no request's time. */
export function used(deps: Deps, { id, isStale }: LiveToken): void {
  if (!isStale) return
  askRelaxed(deps.db, (relaxed) => noteUse(relaxed, id)).catch((error) =>
    deps.log.warn({ error, apiToken: id }, 'the use of an API token could not be noted'),
  )
}

function remember({ auth }: Deps, authorization: string, who: Principal, ms: number, generation: number): Principal {
  const principal = amongEverybody(who, auth.anonymous)
  if (ms > 0) auth.verified.set(auth.nameOf(authorization), { principal, until: Date.now() + ms, generation })
  return principal
}

function wrong(detail: string, cause?: unknown): Failure {
  return new Failure('UNAUTHORIZED', { detail, cause })
}
