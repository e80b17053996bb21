import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, type JWK } from 'jose'
import { Provider } from 'oidc-provider'

export type Authority = {
  issuer: string
  audience: string
  /** An access token for a service that has these scopes. */
  token(scope: string, client?: string): Promise<string>
  /** New keys in the place of the old ones, which are not told any more. */
  rotate(): Promise<void>
  stop(): Promise<void>
  /** Serves again, at the same address. */
  start(): Promise<void>
}

const audience = 'urn:packs'
const scopes = ['packs.read', 'packs.write', 'packs.approve', 'packs.admin']

/** A real OpenID provider on a free port of this machine. Its clients are services: no person has to log in. */
export async function startAuthority(): Promise<Authority> {
  let server: Server
  let port = 0
  let handle: ReturnType<Provider['callback']>
  let keys = 0
  const configure = async () => {
    const issuer = `http://127.0.0.1:${port}`
    handle = new Provider(issuer, { ...settings(), jwks: { keys: [await newKey(`key-${++keys}`)] } }).callback()
  }
  const listen = async () => {
    server = createServer((request, response) => void handle(request, response))
    server.listen(port, '127.0.0.1')
    await once(server, 'listening')
    port = (server.address() as AddressInfo).port
  }
  await listen()
  await configure()
  const issuer = `http://127.0.0.1:${port}`
  return {
    issuer,
    audience,
    async token(scope, client = 'service') {
      const answer = await fetch(`${issuer}/token`, {
        method: 'POST',
        headers: { authorization: `Basic ${Buffer.from(`${client}:secret`).toString('base64')}` },
        body: new URLSearchParams({ grant_type: 'client_credentials', scope, resource: audience }),
      })
      const told = (await answer.json()) as { access_token?: string }
      if (!told.access_token) throw new Error(`the provider gives no token: ${JSON.stringify(told)}`)
      return told.access_token
    },
    rotate: configure,
    async stop() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
    start: listen,
  }
}

async function newKey(kid: string): Promise<JWK> {
  const { privateKey } = await generateKeyPair('RS256', { extractable: true })
  return { ...(await exportJWK(privateKey)), kid, alg: 'RS256', use: 'sig' }
}

function settings() {
  const client = (id: string) => ({
    ...{ client_id: id, client_secret: 'secret', grant_types: ['client_credentials'] },
    ...{ redirect_uris: [], response_types: [] },
  })
  return {
    clients: ['service', 'alice'].map(client),
    ttl: { ClientCredentials: 600 },
    scopes,
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        getResourceServerInfo: () => ({
          ...{ scope: scopes.join(' '), audience, accessTokenTTL: 600, accessTokenFormat: 'jwt' as const },
          jwt: { sign: { alg: 'RS256' as const } },
        }),
      },
    },
  }
}
