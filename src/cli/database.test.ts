import assert from 'node:assert/strict'
import { after, before, it } from 'node:test'
import { readConfig } from '../config.ts'
import { migrate } from '../db/migrate.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { reaching } from './database.ts'

let databases: TestDatabases
before(async () => {
  databases = await startDatabases()
})
after(() => databases?.stop())

const failing = (url: string) => reaching(readConfig({ DATABASE_URL: url }), () => migrate(url))

it('a database that is not there is told of by the setting, without its password', async () => {
  await assert.rejects(failing('postgres://u:sekret@127.0.0.1:1/packs'), ({ message }: Error) => {
    assert.match(message, /^DATABASE_URL: the database cannot be reached \(.*ECONNREFUSED.*\)\. Check host and port/)
    assert.doesNotMatch(message, /sekret/)
    return true
  })
  await assert.rejects(failing('postgres://u@no-such-host.invalid/packs'), /^Error: DATABASE_URL: .*no-such-host/)
})

it('one that lets nobody in, too', async () => {
  const url = new URL(await databases.empty())
  url.pathname = '/nothing'
  await assert.rejects(
    failing(url.href),
    /^Error: DATABASE_URL: .*lets nobody in \(.*nothing.*\)\. Check user, password/,
  )
})

it('other errors are as they were', async () => {
  const config = readConfig({ DATABASE_URL: 'postgres://host/packs' })
  await assert.rejects(
    reaching(config, () => Promise.reject(new Error('something else'))),
    /^Error: something else$/,
  )
})
