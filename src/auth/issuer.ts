import { createLocalJWKSet, type JSONWebKeySet, type JWTHeaderParameters, type JWTPayload, jwtVerify } from 'jose'

// Tokens of an OpenID provider. Which key checks a token is decided by our list alone: the provider's key set, fetched
// from where its discovery document says, and in it by the `kid`. What a token brings along itself (`jwk`, `jku`, `x5u`,
// `x5c`) makes it refused. The set is fetched anew when it is old, in the background, and at once for an unknown `kid`, but
// not more often than `pauseMs`; while the provider is down, the keys that are known go on checking.

/** Public-key algorithms only: a secret shared with the provider is none of ours, and a public key must not be one. */
const algorithms = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']
const types = new Set(['jwt', 'at+jwt', 'application/at+jwt'])
/** How far clocks may differ, in seconds. */
const skewSeconds = 60
const freshMs = 600_000
const fetchMs = 5_000
const mostBytes = 1024 * 1024

/** Why a token is not taken, in words that may be told to whoever sent it. */
export class TokenRefused extends Error {
  override name = 'TokenRefused'
}

export type Issuer = {
  readonly issuer: string
  /** The claims of a token that holds. Throws TokenRefused; an Error where the provider was never reached. */
  verify(token: string): Promise<JWTPayload>
}

type Keys = { find: ReturnType<typeof createLocalJWKSet>; kids: ReadonlySet<string>; fetchedAt: number }

/** Nothing is fetched before the first token. `pauseMs`: how long after a fetch the next may follow at the soonest. */
export function openIssuer(
  issuer: string,
  audience: string,
  { pauseMs = 10_000, maxAgeMs = freshMs, now = () => Date.now() } = {},
): Issuer {
  let keys: Keys | undefined
  let triedAt = Number.NEGATIVE_INFINITY
  let lastError: unknown
  let fetching: Promise<void> | undefined

  const refresh = () => {
    triedAt = now()
    fetching ??= fetchKeys(issuer)
      .then(
        (set) => {
          const kids = new Set(set.keys.map((key) => key.kid).filter((kid) => kid !== undefined))
          keys = { find: createLocalJWKSet(set), kids, fetchedAt: now() }
          lastError = undefined
        },
        (error) => {
          lastError = error
        },
      )
      .finally(() => {
        fetching = undefined
      })
    return fetching
  }
  const keysFor = async (kid: string): Promise<Keys> => {
    const mayTry = fetching !== undefined || now() - triedAt >= pauseMs
    if (!keys?.kids.has(kid) && mayTry) await refresh()
    // Known keys are used meanwhile: whether the provider answers is not this request's matter.
    else if (keys && now() - keys.fetchedAt > maxAgeMs && mayTry) void refresh()
    if (!keys) throw new Error(`the keys of ${issuer} could not be fetched`, { cause: lastError })
    if (!keys.kids.has(kid)) throw new TokenRefused('it is signed by a key that its issuer does not have')
    return keys
  }
  return {
    issuer,
    async verify(token) {
      let outage: unknown
      const keyOf = async (header: JWTHeaderParameters) => {
        const kid = checkHeader(header)
        const { find } = await keysFor(kid).catch((error) => {
          outage = error
          throw error
        })
        return find(header)
      }
      try {
        const { payload } = await jwtVerify(token, keyOf, {
          ...{ issuer, audience, algorithms, clockTolerance: skewSeconds },
          requiredClaims: ['exp', 'sub'],
          currentDate: new Date(now()),
        })
        if (!isSubject(payload.sub)) throw new TokenRefused('"sub" is no name that can be written down')
        return payload
      } catch (cause) {
        if (outage !== undefined && !(outage instanceof TokenRefused)) throw outage
        if (cause instanceof TokenRefused) throw cause
        throw new TokenRefused(`the token does not hold: ${(cause as Error).message}`, { cause })
      }
    },
  }
}

/** The audit and the database keep it: text, and nothing in it that a terminal would obey. */
function isSubject(sub: unknown): boolean {
  return typeof sub === 'string' && /^[^\p{Cc}]{1,1000}$/u.test(sub)
}

/** The `kid` of a header that brings no key of its own. Throws TokenRefused. */
function checkHeader(header: JWTHeaderParameters): string {
  for (const name of ['jwk', 'jku', 'x5u', 'x5c'])
    if (name in header) throw new TokenRefused(`the token brings its own key along (${name})`)
  if (header.typ !== undefined && !types.has(String(header.typ).toLowerCase()))
    throw new TokenRefused('the token is not one for access')
  if (typeof header.kid !== 'string' || header.kid === '') throw new TokenRefused('the token names no key (kid)')
  return header.kid
}

/** Source: OpenID Connect Discovery 1.0, section 4. */
async function fetchKeys(issuer: string): Promise<JSONWebKeySet> {
  const found = await fetchJson(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`)
  if (found.issuer !== issuer) throw new Error(`${issuer} says that it is ${JSON.stringify(found.issuer)}`)
  const address = String(found.jwks_uri)
  if (!URL.canParse(address) || (new URL(issuer).protocol === 'https:' && new URL(address).protocol !== 'https:'))
    throw new Error(`${issuer} names no address of its keys that can be used`)
  const set = await fetchJson(address)
  if (!Array.isArray(set.keys)) throw new Error(`${address} is not a set of keys`)
  return set as unknown as JSONWebKeySet
}

async function fetchJson(address: string): Promise<Record<string, unknown>> {
  const answer = await fetch(address, {
    redirect: 'error',
    signal: AbortSignal.timeout(fetchMs),
    headers: { accept: 'application/json' },
  })
  if (!answer.ok || !answer.body) throw new Error(`${address} answers ${answer.status}`)
  const pieces: Uint8Array[] = []
  let size = 0
  for await (const piece of answer.body) {
    size += piece.length
    if (size > mostBytes) throw new Error(`${address} answers with more than ${mostBytes} bytes`)
    pieces.push(piece)
  }
  const value: unknown = JSON.parse(Buffer.concat(pieces).toString())
  if (typeof value !== 'object' || value === null) throw new Error(`${address} does not answer with an object`)
  return value as Record<string, unknown>
}
