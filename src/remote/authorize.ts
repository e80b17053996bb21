import type { IncomingMessage } from 'node:http'
import { Failure } from '../errors.ts'
import { type Challenge, parseChallenges } from './challenge.ts'
import { isKnown } from './egress.ts'
import { discard, exchange, readAll } from './exchange.ts'
import type { Remote, Token } from './remote.ts'

/** Tokens are asked for anew so long before they end. */
const slackMs = 10_000
const mostTokens = 500

/** What goes into the Authorization header of a request for these scopes, as far as it is known. */
export function authorizationFor({ tokens, credentials }: Remote, scopes: readonly string[]): string | undefined {
  if (credentials && 'token' in credentials) return `Bearer ${credentials.token}`
  for (const key of [keyOf(scopes), '']) {
    const token = tokens.get(key)
    if (token && token.until > performance.now()) return token.header
  }
  return undefined
}

function keyOf(scopes: readonly string[]): string {
  return scopes.join(' ')
}

/**
 * Does what a 401 of the remote's asks for; the next `authorizationFor` knows. False where there is nothing to be done:
 * no credentials, or none that help. Throws REMOTE_DENIED where the token service is somebody else's.
 */
export async function authorize(
  remote: Remote,
  answer: IncomingMessage,
  scopes: readonly string[],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const { credentials } = remote
  if (credentials && 'token' in credentials) return false
  const challenges = parseChallenges(answer.headers['www-authenticate'])
  const bearer = challenges.find(({ scheme }) => scheme === 'bearer')
  if (bearer) {
    const token = await fetchToken(remote, bearer, scopes, signal)
    keep(remote, keyOf(scopes), token)
    return true
  }
  if (!credentials || !challenges.some(({ scheme }) => scheme === 'basic')) return false
  remote.tokens.set('', { header: basic(credentials), until: Number.POSITIVE_INFINITY })
  return true
}

/** A remote may be asked for any number of repositories, each with a token of its own: the oldest makes room. */
function keep({ tokens }: Remote, key: string, token: Token): void {
  const [oldest] = tokens.keys()
  if (oldest !== undefined && tokens.size >= mostTokens) tokens.delete(oldest)
  tokens.set(key, token)
}

function basic({ username, password }: { username: string; password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`
}

/** Source: distribution-spec's token authentication, "Requesting a Token". */
async function fetchToken(
  remote: Remote,
  { parameters }: Challenge,
  scopes: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Token> {
  const url = realmOf(remote, parameters.realm ?? '')
  if (parameters.service !== undefined) url.searchParams.set('service', parameters.service)
  const asked = parameters.scope === undefined ? [] : parameters.scope.split(' ')
  for (const scope of new Set([...asked, ...scopes])) if (scope) url.searchParams.append('scope', scope)
  const { credentials } = remote
  const headers = credentials && 'username' in credentials ? { authorization: basic(credentials) } : undefined
  const answer = await exchange(remote, url, { method: 'GET', headers: headers ?? {}, signal })
  if (answer.statusCode !== 200) {
    discard(answer)
    const passes = (answer.statusCode ?? 0) >= 500 || answer.statusCode === 429
    throw new Failure(passes ? 'REMOTE_UNREACHABLE' : 'REMOTE_DENIED', {
      detail: `the token service ${url.host} answers ${answer.statusCode}${passes ? '' : ': the credentials are not good for it'}`,
    })
  }
  return tokenIn(await readAll(remote, answer, url, 1024 * 1024), url)
}

/**
 * The address of the token service. Credentials are sent there, so it must be the remote's own host, or be named as
 * belonging to it (CVE-2020-15157), and not less secure than the remote.
 */
function realmOf({ egress, url: home }: Remote, realm: string): URL {
  const url = URL.canParse(realm, home.href) ? new URL(realm, home) : undefined
  if (!url || (url.protocol !== 'https:' && url.protocol !== home.protocol))
    throw new Failure('REMOTE_DENIED', {
      detail: `${home.host} names ${JSON.stringify(realm.slice(0, 200))} as its token service, which is no address for credentials`,
    })
  if (!isKnown(egress, url))
    throw new Failure('REMOTE_DENIED', {
      detail: `${home.host} names ${url.host} as its token service. Nothing is sent there: if it belongs to ${home.host}, name it in hosts`,
    })
  return url
}

function tokenIn(bytes: Buffer, url: URL): Token {
  try {
    const { token, access_token: other, expires_in: seconds } = JSON.parse(bytes.toString())
    const text = token ?? other
    if (typeof text === 'string' && /^[\x21-\x7e]+$/.test(text)) {
      const lifeMs = (typeof seconds === 'number' && seconds > 0 ? seconds : 60) * 1000
      return { header: `Bearer ${text}`, until: performance.now() + Math.max(lifeMs - slackMs, lifeMs / 2) }
    }
  } catch {}
  throw new Failure('REMOTE_INVALID', { detail: `the token service ${url.host} answers without a token` })
}
