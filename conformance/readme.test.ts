// Every command in the README, as written there, one block after the other.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { type Server, startServer, temporaryFolder } from './server.ts'

const root = join(import.meta.dirname, '..')
const script = join(root, 'scripts', 'services', 'clients.sh')
const newerClients = execFileSync('bash', [script], { encoding: 'utf8' }).trim()

const blocks = [...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/^```sh\n(.*?)^```$/gms)].map(
  (match) => match[1] ?? '',
)
/** The first two are how to run it and how to test it: `.ci/run` and start.test.ts do that. */
const walkthrough = blocks.slice(2)

describe('README', () => {
  let server: Server
  let other: Server
  let folder: string
  before(async () => {
    ;[server, other] = await Promise.all([startServer(), startServer()])
    folder = temporaryFolder()
    for (const name of ['package.json', 'node_modules', 'src', 'spec'])
      symlinkSync(join(root, name), join(folder, name))
  })
  after(async () => {
    await server?.stop()
    await other?.stop()
    if (folder) rmSync(folder, { recursive: true, force: true })
  })

  it('begins with two commands', () => {
    assert.deepEqual(blocks.slice(0, 2), ['npm ci && npm start\n', 'npm ci && npm test\n'])
    assert.ok(walkthrough.length >= 3)
  })
  for (const block of walkthrough)
    it(block.trim().split('\n')[0] ?? '', () => {
      const commands = block.replaceAll('127.0.0.1:5000', server.host).replaceAll('127.0.0.1:5001', other.host)
      // As from the folder where `npm start` runs: commands beside the server find its data.
      const env = {
        PATH: `${newerClients}:${process.env.PATH}`,
        HOME: folder,
        PACKS_REGISTRY: server.url,
        DATA_DIR: server.dataDir,
      }
      execFileSync('bash', ['-euo', 'pipefail', '-c', commands], { cwd: folder, env, stdio: 'pipe', encoding: 'utf8' })
    })
})
