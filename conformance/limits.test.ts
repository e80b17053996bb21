// Limits mean what they say, however many processes a server has.
import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { Agent, request } from 'node:http'
import { join } from 'node:path'
import { after, before, it } from 'node:test'
import bcrypt from 'bcryptjs'
import { type Server, startServer, temporaryFolder } from './server.ts'

let server: Server
let folder: string

before(async () => {
  folder = temporaryFolder()
  const users = ['alice', 'bob'].map((name) => `${name}:${bcrypt.hashSync(name, 4)}`)
  writeFileSync(join(folder, 'users'), users.join('\n'))
  const auth = { AUTH: 'htpasswd', HTPASSWD_FILE: join(folder, 'users'), ANONYMOUS_PULL: '**' }
  server = await startServer({ env: { ...auth, PROCESSES: '2', RATE_LIMIT: '40' } })
})
after(async () => {
  await server?.stop()
  rmSync(folder, { recursive: true, force: true })
})

/** The status of a request on a connection of its own, so that the processes take turns. */
function ask(authorization?: string, localAddress = '127.0.0.1'): Promise<number> {
  const headers = { connection: 'close', ...(authorization ? { authorization } : {}) }
  return new Promise((resolve, reject) => {
    const agent = new Agent({ keepAlive: false })
    request(`${server.url}/v2/_catalog`, { headers, agent, localAddress }, (answer) => {
      answer.resume()
      answer.on('end', () => resolve(answer.statusCode ?? 0))
    })
      .on('error', reject)
      .end()
  })
}

const basic = (name: string, password = name) => `Basic ${Buffer.from(`${name}:${password}`).toString('base64')}`

async function statuses(count: number, authorization?: string, from?: string): Promise<Record<number, number>> {
  const told: Record<number, number> = {}
  for (let i = 0; i < count; i++) {
    const status = await ask(authorization, from)
    told[status] = (told[status] ?? 0) + 1
  }
  return told
}

it('a user has as many requests a minute as RATE_LIMIT says, over all processes', async () => {
  assert.deepEqual(await statuses(60, basic('alice')), { 200: 40, 429: 20 })
})

it('another user has their own', async () => {
  assert.deepEqual(await statuses(10, basic('bob')), { 200: 10 })
})

it('credentials that do not hold count by address, and cannot be shown as often as one likes', async () => {
  const told = [await statuses(20, 'Bearer eyJhbGciOiJub25lIn0.e30.'), await statuses(30, 'Negotiate x')]
  assert.deepEqual(told, [{ 401: 20 }, { 401: 20, 429: 10 }])
})

it('an address may show thirty wrong passwords a minute, over all processes', async () => {
  assert.deepEqual(await statuses(50, basic('alice', 'wrong'), '127.0.0.2'), { 401: 30, 429: 20 })
})
