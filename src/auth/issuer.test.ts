import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { it } from 'node:test'
import { exportJWK, SignJWT } from 'jose'
import { waitFor } from '../testing/wait.ts'
import { openIssuer } from './issuer.ts'

const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })

type Answers = (request: IncomingMessage, response: ServerResponse, issuer: string) => void

/** An issuer that answers so, and how often its keys were asked for. */
async function withIssuer(answers: Answers, test: (issuer: string, fetched: () => number) => Promise<void>) {
  let fetched = 0
  const server = createServer((request, response) => {
    if (request.url?.startsWith('/keys')) fetched++
    answers(request, response, issuer)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  try {
    await test(issuer, () => fetched)
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

const good: Answers = async (request, response, issuer) => {
  const key = { ...(await exportJWK(publicKey)), kid: 'one', alg: 'ES256', use: 'sig' }
  response.end(JSON.stringify(request.url === '/keys' ? { keys: [key] } : { issuer, jwks_uri: `${issuer}/keys` }))
}

const tokenOf = (issuer: string, kid = 'one', exp = Math.floor(Date.now() / 1000) + 300) =>
  new SignJWT({ iss: issuer, aud: 'packs', sub: 'alice', exp })
    .setProtectedHeader({ alg: 'ES256', kid })
    .sign(privateKey)

it('its keys are fetched once for many tokens, and again in the background when they are old', async () => {
  await withIssuer(good, async (issuer, fetched) => {
    let time = Date.now()
    const opened = openIssuer(issuer, 'packs', { now: () => time, maxAgeMs: 10_000, pauseMs: 1_000 })
    const token = await tokenOf(issuer)
    await Promise.all(Array.from({ length: 20 }, () => opened.verify(token)))
    assert.equal(fetched(), 1)
    time += 11_000
    await opened.verify(token)
    await waitFor('the keys to be fetched again', () => fetched() >= 2)
    await opened.verify(token)
    assert.equal(fetched(), 2)
  })
})

it('unknown kids have them fetched again, but not more often than once in a while', async () => {
  await withIssuer(good, async (issuer, fetched) => {
    let time = Date.now()
    const opened = openIssuer(issuer, 'packs', { now: () => time, pauseMs: 10_000 })
    await opened.verify(await tokenOf(issuer))
    const unknown = await Promise.all(Array.from({ length: 10 }, (_, i) => tokenOf(issuer, `made up ${i}`)))
    for (const token of unknown) await assert.rejects(opened.verify(token), /key that its issuer does not have/)
    assert.equal(fetched(), 1)
    time += 10_000
    for (const token of unknown) await assert.rejects(opened.verify(token), /key that its issuer does not have/)
    assert.equal(fetched(), 2)
  })
})

it('clocks may differ by a minute and no more', async () => {
  await withIssuer(good, async (issuer) => {
    let time = Date.now()
    const opened = openIssuer(issuer, 'packs', { now: () => time })
    const token = await tokenOf(issuer, 'one', Math.floor(time / 1000))
    time += 58_000
    await opened.verify(token)
    time += 4_000
    await assert.rejects(opened.verify(token), /does not hold: "exp" claim/)
  })
})

const unusable: { name: string; answers: Answers }[] = [
  {
    name: 'says that it is another',
    answers: (_, response, issuer) =>
      response.end(JSON.stringify({ issuer: `${issuer}/other`, jwks_uri: `${issuer}/keys` })),
  },
  {
    name: 'sends on to elsewhere',
    answers: (_, response) => response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end(),
  },
  { name: 'answers with no JSON', answers: (_, response) => response.end('<html>') },
  { name: 'answers with a list', answers: (_, response) => response.end('[]') },
  { name: 'is broken', answers: (_, response) => response.writeHead(500).end('{}') },
  {
    name: 'names no keys',
    answers: (_, response, issuer) => response.end(JSON.stringify({ issuer, jwks_uri: 'nowhere' })),
  },
  {
    name: 'answers without end',
    answers: (_, response) => {
      const more = () => {
        while (response.write(' '.repeat(65_536)));
      }
      response.on('drain', more)
      more()
    },
  },
]
for (const { name, answers } of unusable)
  it(`one that ${name} has no keys, which is no refusal of a token`, async () => {
    await withIssuer(answers, async (issuer) => {
      const opened = openIssuer(issuer, 'packs')
      await assert.rejects(opened.verify(await tokenOf(issuer)), { name: 'Error', message: /could not be fetched/ })
    })
  })
