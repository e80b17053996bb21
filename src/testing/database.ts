import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from '../db/client.ts'
import { startEmbedded } from '../db/embedded.ts'
import { migrate } from '../db/migrate.ts'

export type TestDatabases = {
  /** The address of a new database with the current schema, cloned from a template in some 20 ms. */
  fresh(): Promise<string>
  /** The address of a new database with nothing in it. */
  empty(): Promise<string>
  stop(): Promise<void>
}

/** A real PostgreSQL of its own for one test file. Durability is off: it lives as long as the file. */
export async function startDatabases(): Promise<TestDatabases> {
  const dataDir = await mkdtemp(join(tmpdir(), 'packs-test-'))
  // As root, the server runs as a user that has to reach the folder; else its cluster would be made elsewhere, to stay.
  await chmod(dataDir, 0o755)
  const server = await startEmbedded({ dataDir, settings: { fsync: 'off', synchronous_commit: 'off' } })
  const admin = connect(server.url, { max: 1 })
  const addressOf = (name: string) => {
    const url = new URL(server.url)
    url.pathname = `/${name}`
    return url.href
  }
  let count = 0
  const make = async (template: string) => {
    const name = `test_${count++}`
    await admin.unsafe(`create database ${name} template ${template}`)
    return addressOf(name)
  }
  await admin.unsafe('create database filled')
  await migrate(addressOf('filled'))
  return {
    fresh: () => make('filled'),
    empty: () => make('template0'),
    async stop() {
      await admin.end()
      await server.stop()
      await rm(dataDir, { recursive: true, force: true })
    },
  }
}
