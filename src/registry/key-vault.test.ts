import assert from 'node:assert/strict'
import { sign } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, it } from 'node:test'
import { readConfig } from '../config.ts'
import { closeDeps, type Deps, openDeps } from '../deps.ts'
import { openLog } from '../log.ts'
import { startDatabases, type TestDatabases } from '../testing/database.ts'
import { lockAwayAll } from './key-vault.ts'
import { createKey, rotateKey, signers } from './keys.ts'
import { rotateTokenKey, signingKey } from './token-keys.ts'

let databases: TestDatabases
let folder: string
before(async () => {
  databases = await startDatabases()
  folder = await mkdtemp(join(tmpdir(), 'packs-vault-'))
})
after(async () => {
  await databases?.stop()
  await rm(folder, { recursive: true, force: true })
})

const [first, second, third] = ['a', 'b', 'c'].map((letter) => letter.repeat(64)) as [string, string, string]

/** What a server with these secrets does, beginning with what it does when it starts. */
async function serving(url: string, secrets: string[], run: (deps: Deps) => Promise<void> = async () => undefined) {
  const file = join(folder, 'secrets')
  await writeFile(file, `${secrets.join('\n')}\n`)
  const setting = secrets.length > 0 ? { KEY_ENCRYPTION_FILE: file } : {}
  const deps = await openDeps(readConfig({ DATA_DIR: folder, ...setting }), url, openLog('silent'))
  try {
    await lockAwayAll(deps)
    await run(deps)
  } finally {
    await closeDeps(deps)
  }
}

async function requireSigning(deps: Deps, names: number): Promise<void> {
  const found = await signers(deps)
  assert.equal(found.length, names)
  for (const { privateKey } of found) assert.equal(sign(null, Buffer.from('x'), privateKey).length, 64)
  assert.equal(sign(null, Buffer.from('x'), (await signingKey(deps)).privateKey).length, 64)
}

async function storedKeys({ db }: Deps): Promise<Buffer[]> {
  const rows = await db.sql<{ key: Buffer }[]>`
    select private_key as key from signing_keys where private_key is not null
    union all select private_key from token_keys where private_key is not null`
  return rows.map(({ key }) => key)
}

it('keys lie encrypted once there is a secret, those that were there too', async () => {
  const url = await databases.fresh()
  await serving(url, [], async (deps) => {
    await createKey(deps, 'old')
    await requireSigning(deps, 1)
    assert.deepEqual(
      (await storedKeys(deps)).map(([byte]) => byte),
      [0x30, 0x30],
    )
  })
  await serving(url, [first], async (deps) => {
    await createKey(deps, 'new')
    await requireSigning(deps, 2)
    await rotateKey(deps, 'old')
    await rotateTokenKey(deps)
    await requireSigning(deps, 2)
    assert.deepEqual(
      (await storedKeys(deps)).map(([byte]) => byte),
      [1, 1, 1],
    )
  })
})

it('who has another secret, or none, does not start, and is told why', async () => {
  const url = await databases.fresh()
  await serving(url, [first], async (deps) => void (await createKey(deps, 'one')))
  await assert.rejects(serving(url, [second]), /KEY_ENCRYPTION_FILE does not open the private key sha256:/)
  await assert.rejects(serving(url, []), /The private key sha256:.* is encrypted. Set KEY_ENCRYPTION_FILE/)
  await assert.rejects(serving(url, ['too short']), /each line has to be a secret of 32 characters/)
})

it('a secret is replaced by one before it; then the old one is of no use any more', async () => {
  const url = await databases.fresh()
  await serving(url, [first], async (deps) => void (await createKey(deps, 'one')))
  await serving(url, [second, first], (deps) => requireSigning(deps, 1))
  await serving(url, [third, second], (deps) => requireSigning(deps, 1))
  await serving(url, [third], (deps) => requireSigning(deps, 1))
  await assert.rejects(serving(url, [first, second]), /does not open/)
})

it('what is stored for one key is not taken for another', async () => {
  const url = await databases.fresh()
  await serving(url, [first], async (deps) => {
    await createKey(deps, 'one')
    await createKey(deps, 'two')
    await deps.db.sql`
      update signing_keys k set private_key = o.private_key from signing_keys o where o.keyid <> k.keyid`
    await assert.rejects(signers(deps), /does not open/)
  })
})
