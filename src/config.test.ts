import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ConfigError, describeSettings, isLoopback, readConfig } from './config.ts'

describe('settings', () => {
  it('have defaults for a laptop', () => {
    const config = readConfig({})
    assert.equal(config.host, '127.0.0.1')
    assert.equal(config.port, 5000)
    assert.equal(config.databaseUrl, undefined)
    assert.match(config.blobStore, /^file:\/.*\/data\/blobs$/)
  })
  it('take an empty text for one that is not set', () => assert.equal(readConfig({ PORT: '' }).port, 5000))
  it('are refused all at once, each by its name, without what is secret', () => {
    assert.throws(
      () => readConfig({ PORT: 'abc', PROCESSES: '0', DATABASE_URL: 'mysql://u:hunter2@h/d', LOG_LEVEL: 'loud' }),
      (error) => {
        assert.ok(error instanceof ConfigError)
        for (const name of ['PORT="abc"', 'PROCESSES="0"', 'DATABASE_URL=(hidden)', 'LOG_LEVEL="loud"'])
          assert.ok(error.message.includes(name), name)
        assert.ok(!error.message.includes('hunter2'))
        return true
      },
    )
  })
  it('do not open the registry to a network by accident', () => {
    assert.throws(() => readConfig({ HOST: '0.0.0.0' }), /AUTH=none/)
    assert.equal(readConfig({ HOST: '0.0.0.0', AUTH: 'none' }).host, '0.0.0.0')
  })
  it('let a network in once it is said who is let in', () => {
    const oidc = { AUTH: 'oidc', AUTHORITY_ISSUER: 'https://id.example', AUTHORITY_AUDIENCE: 'packs' }
    assert.equal(readConfig({ HOST: '0.0.0.0', ...oidc }).auth.authority?.audience, 'packs')
    assert.equal(readConfig({ HOST: '0.0.0.0', AUTH: 'htpasswd', HTPASSWD_FILE: 'users' }).auth.mode, 'htpasswd')
  })
  for (const [wrong, says] of [
    [{ AUTH: 'oidc' }, /set AUTHORITY_ISSUER and AUTHORITY_AUDIENCE/],
    [{ AUTH: 'htpasswd' }, /set HTPASSWD_FILE/],
    [{ HTPASSWD_FILE: 'users' }, /HTPASSWD_FILE: has no effect with AUTH=none/],
    [{ AUTH: 'none', POLICY_FILE: 'p' }, /POLICY_FILE: has no effect/],
    [{ AUTH: 'oidc', AUTHORITY_ISSUER: 'http://id.example' }, /must be an https address/],
    [{ AUTH: 'oidc', AUTHORITY_ISSUER: 'http://127.evil.example' }, /must be an https address/],
    [{ ANONYMOUS_PULL: 'packs/*,(x)' }, /must be globs/],
    [{ PUBLIC_URL: 'https://a.example/path' }, /without a path/],
    [{ TRUSTED_PROXIES: '10.0.0.0/33' }, /must be addresses/],
    [{ SCRUB_SCHEDULE: '99 99 * * *' }, /SCRUB_SCHEDULE=.*: must be five fields of cron/],
    [{ SCRUB_SCHEDULE: '0 0 31 2 *' }, /of a time that comes/],
    [{ SCRUB_SCHEDULE: '0 0 31 4,6 *' }, /of a time that comes/],
    [{ BLOB_STORE: 'file:' }, /BLOB_STORE="file:": must name a folder by its absolute path/],
    [{ BLOB_STORE: 'file:blobs' }, /absolute path/],
    [{ BLOB_STORE: 'file://host/blobs' }, /absolute path/],
    [{ DATABASE_URL: 'postgres://u:sekret@@@/x:y' }, /DATABASE_URL=\(hidden\): must be an address such as/],
    [{ DATABASE_URL: 'postgres://u:se/kret@host/packs' }, /write "@"/],
    [{ DATABASE_URL: 'postgres://u:100%@host/packs' }, /must be an address/],
  ] as [Record<string, string>, RegExp][])
    it(`refuse ${JSON.stringify(wrong)}`, () => assert.throws(() => readConfig(wrong), says))
  for (const setting of [
    { SCRUB_SCHEDULE: '30 4 * * MON-FRI' },
    { SCRUB_SCHEDULE: '0 0 29 2 *' },
    { SCRUB_SCHEDULE: 'off' },
    { BLOB_STORE: 'file:/var/blobs' },
    { BLOB_STORE: 'file:///var/blobs' },
    { DATABASE_URL: 'postgres://packs:p%40ss@[::1]:5432/packs?sslmode=require' },
    { DATABASE_URL: 'postgres:///packs?host=db' },
    { DATABASE_URL: 'postgresql://packs@one:5432,two:5433/packs' },
    { DATABASE_URL: 'postgres://postgres@%2Ftmp%2Fx:5432/postgres' },
  ])
    it(`take ${JSON.stringify(setting)}`, () => assert.doesNotThrow(() => readConfig(setting)))
  it('take a certificate only with its key', () =>
    assert.throws(() => readConfig({ TLS_CERT_FILE: 'a' }), /TLS_KEY_FILE/))
  it('are shown with passwords masked', () => {
    const shown = describeSettings({ DATABASE_URL: 'postgres://packs:hunter2@db/packs' })
    assert.equal(shown.find(({ name }) => name === 'DATABASE_URL')?.value, 'postgres://packs:***@db/packs')
  })
  for (const [host, loopback] of [
    ['127.0.0.1', true],
    ['127.1.2.3', true],
    ['::1', true],
    ['localhost', true],
    ['127.evil.example', false],
    ['0.0.0.0', false],
    ['::', false],
  ] as const)
    it(`know that ${host} is ${loopback ? '' : 'not '}loopback`, () => assert.equal(isLoopback(host), loopback))
})
