import { generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto'
import { calculateJwkThumbprint, decodeJwt, type JWTPayload, jwtVerify, SignJWT } from 'jose'
import { TokenRefused } from './issuer.ts'

// The tokens that /token gives and every door takes: short-lived, and each for what was asked. They are signed with
// Ed25519, by a key that all processes share.

/** Names this registry in its own tokens, and as `service` in challenges. Clients choose the scheme by words in it. */
export const service = 'packs-registry'
/** How long a token for access is good, and one to get others with, in seconds. */
export const accessSeconds = 300
export const refreshSeconds = 30 * 24 * 60 * 60

/** What a token is for. Source: distribution's token specification, `access`. */
export type Access = { type: 'repository' | 'registry'; name: string; actions: string[] }

/** A key pair, its parts in DER. `kid`: the thumbprint of the public part (RFC 7638). */
export async function newTokenKey(): Promise<{ kid: string; publicKey: Buffer; privateKey: Buffer }> {
  const { publicKey, privateKey } = generateKeyPairSync('ed25519')
  return {
    kid: await calculateJwkThumbprint(publicKey.export({ format: 'jwk' })),
    publicKey: publicKey.export({ type: 'spki', format: 'der' }),
    privateKey: privateKey.export({ type: 'pkcs8', format: 'der' }),
  }
}

export type TokenKey = { kid: string; privateKey: KeyObject }
/** The keys that a process has, and since when (milliseconds): what they are is a matter of the database. */
export type Keyring = { loaded?: { signing: TokenKey; byKid: ReadonlyMap<string, KeyObject>; at: number } }

type Use = 'access' | 'refresh'
const audienceOf = (use: Use) => (use === 'access' ? service : `${service}/token`)

/** Signs claims for one use; a token for the other is not taken in its place. */
export function signToken(
  { kid, privateKey }: TokenKey,
  use: Use,
  subject: string,
  claims: JWTPayload,
  seconds: number,
): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  return new SignJWT(claims)
    .setProtectedHeader({ alg: 'EdDSA', kid, typ: use === 'access' ? 'JWT' : 'refresh+jwt' })
    .setIssuer(service)
    .setAudience(audienceOf(use))
    .setSubject(subject)
    .setIssuedAt(now)
    .setNotBefore(now)
    .setExpirationTime(now + seconds)
    .setJti(randomUUID())
    .sign(privateKey)
}

/** The claims of a token of ours. `keyOf`: the public key of a kid, undefined where we have none. Throws TokenRefused. */
export async function verifyToken(
  token: string,
  use: Use,
  keyOf: (kid: string) => Promise<KeyObject | undefined>,
): Promise<JWTPayload & { sub: string; exp: number }> {
  try {
    const { payload } = await jwtVerify(
      token,
      async ({ kid = '' }) => {
        const key = await keyOf(kid)
        if (!key) throw new TokenRefused('it is signed by no key of this registry')
        return key
      },
      {
        ...{ algorithms: ['EdDSA'], issuer: service, audience: audienceOf(use), clockTolerance: 60 },
        ...{ typ: use === 'access' ? 'JWT' : 'refresh+jwt', requiredClaims: ['exp', 'sub', 'nbf'] },
      },
    )
    return payload as JWTPayload & { sub: string; exp: number }
  } catch (cause) {
    if (cause instanceof TokenRefused || !isJoseError(cause)) throw cause
    throw new TokenRefused(`the token does not hold: ${cause.message}`, { cause })
  }
}

function isJoseError(error: unknown): error is Error {
  return error instanceof Error && String((error as { code?: unknown }).code).startsWith('ERR_J')
}

/** Who a token says that it is from; nothing of it is believed yet. Undefined where it is no token. */
export function issuerOf(token: string): string | undefined {
  try {
    return decodeJwt(token).iss ?? ''
  } catch {
    return undefined
  }
}
