import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { credentialsFor, keepLogin, registryOf } from './auth-file.ts'

const home = mkdtempSync(join(tmpdir(), 'packs-auth-'))
after(() => rmSync(home, { recursive: true, force: true }))
const env = { HOME: home }

describe('a login', () => {
  const [safe, open] = [new URL('https://packs.example.org'), new URL('http://packs.example.org')]
  const credentials = { username: 'ann', password: 'secret' }

  it('by https is not sent by http', async () => {
    await keepLogin(env, safe, credentials)
    assert.deepEqual(await credentialsFor(env, safe), credentials)
    await assert.rejects(credentialsFor(env, open), { code: 'LOGIN_INSECURE', message: /packs login http:/ })
  })

  it('by http is for those who made it so', async () => {
    await keepLogin(env, open, { token: 'a.b.c' })
    assert.deepEqual(await credentialsFor(env, open), { token: 'a.b.c' })
  })

  for (const address of [
    'https://ann:secret@packs.example.org/?q',
    'ftp://ann:secret@packs.example.org',
    'ann:se@cret@ /',
  ])
    it(`is not repeated where ${address} is no address`, () =>
      assert.rejects(registryOf(env, address), (error: Error) => {
        assert.match(error.message, /is not the address of a registry/)
        assert.doesNotMatch(error.message, /ann|secret|cret/)
        return true
      }))
})
