// The OCI distribution specification's own conformance suite, from its Go module, against every kind of store and
// process model. Its exit code is not trusted: it is 0 when the suite cannot load its configuration.
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { startObjectStore } from './s3.ts'
import { type Server, startServer, temporaryFolder } from './server.ts'

const run = promisify(execFile)
const module = 'github.com/opencontainers/distribution-spec/conformance@v0.0.0-20260831232431-97274622c111'

const versions = ['dev', '1.1']
/** What this release of the suite counts, in either version, when all of it has run. */
const tests = 986

// Tests that need a manifest with a layer nobody pushed to be taken. We refuse those (MANIFEST_BLOB_UNKNOWN), as the
// specification allows; the suite has them off in every version.
const off = ['Sparse Manifests']

/** Everything the suite can do, whatever the version has on by default. */
const everything = {
  OCI_API_PING: 'true',
  OCI_API_PULL: 'true',
  OCI_API_PUSH: 'true',
  OCI_API_BLOBS_ATOMIC: 'true',
  OCI_API_BLOBS_DELETE: 'true',
  OCI_API_BLOBS_DIGEST_HEADER: 'true',
  OCI_API_BLOBS_MOUNT_ANONYMOUS: 'true',
  OCI_API_BLOBS_UPLOAD_CANCEL: 'true',
  OCI_API_MANIFESTS_ATOMIC: 'true',
  OCI_API_MANIFESTS_DELETE: 'true',
  OCI_API_MANIFESTS_DIGEST_HEADER: 'true',
  OCI_API_MANIFESTS_TAG_PARAM: 'true',
  OCI_API_TAGS_ATOMIC: 'true',
  OCI_API_TAGS_DELETE: 'true',
  OCI_API_TAGS_LIST: 'true',
  OCI_API_REFERRER: 'true',
}

async function installSuite(): Promise<string> {
  const cache = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'packs-registry', 'conformance')
  const program = join(cache, module.slice(module.indexOf('@') + 1))
  if (existsSync(program)) return program
  mkdirSync(cache, { recursive: true })
  const work = temporaryFolder()
  await run('go', ['install', module], { env: { ...process.env, GOBIN: work, GOFLAGS: '' } })
  await run('mv', [join(work, 'conformance'), `${program}.new`])
  renameSync(`${program}.new`, program)
  rmSync(work, { recursive: true })
  return program
}

type Outcome = { counts: Record<string, number>; features: Map<string, string>; troubles: string[] }

const user = {
  name: 'suite',
  password: 'a password',
  hash: '$2b$04$Z4SOUg2rrF2dmefj9frSpuvi/IwgFhLM7XT90kG9pqYMRHaPSRi3e',
}

async function runSuite(program: string, host: string, version: string, settings = {}): Promise<Outcome> {
  const folder = temporaryFolder()
  const name = `conformance-${version.replace('.', '-')}`
  const env = {
    PATH: process.env.PATH,
    OCI_REGISTRY: host,
    OCI_TLS: 'disabled',
    OCI_VERSION: version,
    OCI_REPO1: `${name}/repo1`,
    OCI_REPO2: `${name}/repo2`,
    OCI_RESULTS_DIR: folder,
    // Where everyone may do everything they are not asked for.
    OCI_USERNAME: user.name,
    OCI_PASSWORD: user.password,
    ...everything,
    ...settings,
  }
  const said = await run(program, [], { cwd: folder, env, maxBuffer: 1 << 28 }).catch((failure) => failure)
  try {
    return readResults(folder)
  } catch (error) {
    throw new Error(`the suite left no results; it said: ${said.stdout} ${said.stderr}`, { cause: error })
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function readResults(folder: string): Outcome {
  const junit = readFileSync(join(folder, 'junit.xml'), 'utf8')
  const head = /<testsuite name=[^>]*>/.exec(junit)?.[0] ?? assert.fail('no test suite in junit.xml')
  const count = (name: string) => Number(new RegExp(` ${name}="(\\d+)"`).exec(head)?.[1] ?? 0)
  const cases = junit.split('<testcase ').slice(1)
  const troubles = cases.filter((one) => !/ status="passed"/.test(one)).map((one) => one.slice(0, 1000))

  // `apis:` and `data:` of results.yaml: one line `name: Pass` each.
  const features = new Map<string, string>()
  const yaml = readFileSync(join(folder, 'results.yaml'), 'utf8')
  for (const [, name = '', status = ''] of yaml.slice(yaml.indexOf('\napis:')).matchAll(/^ {2}(.+): (\w+)$/gm)) {
    features.set(name, status)
  }
  const { tests, failures, errors, skipped, disabled } = Object.fromEntries(
    ['tests', 'failures', 'errors', 'skipped', 'disabled'].map((name) => [name, count(name)]),
  )
  return { counts: { tests, failures, errors, skipped, disabled } as Record<string, number>, features, troubles }
}

const stores = [
  { store: 'file', settings: [{}] },
  { store: 's3', settings: [{ BLOB_REDIRECT: 'true' }, { BLOB_REDIRECT: 'false' }] },
]
const shapes = stores.flatMap(({ store, settings }) =>
  settings.flatMap((setting) => ['1', '2'].map((PROCESSES) => ({ store, env: { ...setting, PROCESSES } }))),
)

describe('OCI conformance suite', () => {
  let program: string
  let s3: Awaited<ReturnType<typeof startObjectStore>>
  const folder = temporaryFolder()
  before(async () => {
    program = await installSuite()
    s3 = await startObjectStore()
  })
  after(async () => {
    await s3?.stop()
    rmSync(folder, { recursive: true, force: true })
  })

  for (const [index, { store, env }] of shapes.entries()) {
    describe(`${store} ${Object.entries(env)
      .map(([name, value]) => `${name}=${value}`)
      .join(' ')}`, () => {
      let server: Server
      before(async () => {
        server = await startServer({ env: { ...env, ...(store === 's3' ? s3.env(`suite-${index}`) : {}) } })
      })
      after(() => server?.stop())

      for (const version of versions) {
        it(`version ${version}: all pass, none skipped`, async () => {
          const { counts, features, troubles } = await runSuite(program, server.host, version)
          assert.equal(
            troubles.length,
            0,
            `${troubles.length} not passed, among them:\n${troubles.slice(0, 10).join('\n')}`,
          )
          assert.deepEqual(counts, { tests, failures: 0, errors: 0, skipped: 0, disabled: 0 })
          const notPassed = [...features].filter(([, status]) => status !== 'Pass').map(([name]) => name)
          assert.deepEqual(notPassed, off)
        })
      }
    })
  }

  describe('with a login', () => {
    const servers: Server[] = []
    const users = () => {
      const file = join(folder, 'users')
      writeFileSync(file, `${user.name}:${user.hash}\n`)
      return { AUTH: 'htpasswd', HTPASSWD_FILE: file, PROCESSES: '2' }
    }
    const start = async (env: Record<string, string>) => {
      const server = await startServer({ env: { ...users(), ...env } })
      servers.push(server)
      return server.host
    }
    after(async () => {
      for (const server of servers) await server.stop()
    })

    it('to push: all pass, none skipped', async () => {
      const host = await start({ ANONYMOUS_PULL: '**' })
      for (const version of versions) {
        const { counts, troubles } = await runSuite(program, host, version)
        assert.equal(troubles.length, 0, troubles.slice(0, 10).join('\n'))
        assert.deepEqual(counts, { tests, failures: 0, errors: 0, skipped: 0, disabled: 0 })
      }
    })

    // A blob is mounted from where the client may read. The suite remembers tokens by target and method alone, and so asks
    // for no other where it names a source: it is told not to remember. Where it names none, it has nothing to read it by.
    it('to read as well: all pass, but for mounts from nowhere in particular', async () => {
      const host = await start({})
      for (const version of versions) {
        const { counts, troubles } = await runSuite(program, host, version, { OCI_CACHE_AUTH: 'false' })
        const told = troubles.slice(0, 10).join('\n')
        assert.deepEqual([counts.failures, counts.errors, counts.skipped, counts.disabled], [0, 0, 2, 0], told)
        for (const trouble of troubles) assert.match(trouble, /blob-mount-anonymous.*status="skipped"/s)
      }
    })
  })
})
