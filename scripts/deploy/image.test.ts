import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { createServer } from 'node:http'
import { join, relative, resolve } from 'node:path'
import { describe, test } from 'node:test'
import { promisify } from 'node:util'
import { readConfig } from '../../src/config.ts'
import { isSent, pairsOf } from './containerfile.ts'
import { assertSettings, final, imageEnv, instructions, only, read, root } from './image.ts'

const run = promisify(execFile)
const dockerignore = read(root, '.dockerignore')

/** An example in a comment imports nothing. */
const withoutComments = (text: string) => text.replace(/\/\*[\s\S]*?\*\//g, '')

describe('Containerfile', () => {
  test('copies only what exists and is sent to the build', () => {
    for (const { rest } of instructions.filter(({ name }) => name === 'COPY')) {
      if (rest.startsWith('--from=')) continue
      for (const source of rest.split(/\s+/).slice(0, -1)) {
        assert.ok(existsSync(join(root, source)), `${source} exists`)
        assert.ok(isSent(source, dockerignore), `${source} is not ignored`)
      }
    }
  })

  test('sends nothing else: no data, no history, no installed packages, no tests', () => {
    for (const path of ['.git/config', 'data/blobs/x', 'node_modules/hono/x.js', 'conformance/server.ts', '.env'])
      assert.ok(!isSent(path, dockerignore), path)
    assert.ok(!isSent('src/config.test.ts', dockerignore))
    assert.ok(!isSent('src/testing/s3.ts', dockerignore))
  })

  test('holds every file and package that the shipped sources import', () => {
    const { dependencies, optionalDependencies } = JSON.parse(read(root, 'package.json'))
    const sources = readdirSync(join(root, 'src'), { recursive: true })
      .map((path) => join('src', String(path)))
      .filter((path) => path.endsWith('.ts') && isSent(path, dockerignore))
    for (const source of sources) {
      for (const [, name = ''] of withoutComments(read(root, source)).matchAll(
        /(?:^(?:import|export|\}).* from |\bimport\(|^import )'([^']+)'/gm,
      )) {
        if (name.startsWith('node:')) continue
        if (name.startsWith('.')) {
          const target = relative(root, resolve(root, source, '..', name))
          assert.ok(existsSync(join(root, target)) && isSent(target, dockerignore), `${source} imports ${name}`)
        } else {
          const installed = Object.keys({ ...dependencies, ...optionalDependencies })
          assert.ok(
            installed.some((one) => name === one || name.startsWith(`${one}/`)),
            `${source} imports ${name}`,
          )
        }
      }
    }
  })

  test('runs on Node 24, by number as a user who is not root, and is stopped by SIGTERM', () => {
    for (const { rest } of instructions.filter(({ name }) => name === 'FROM'))
      assert.match(rest, /^docker\.io\/library\/node:24-slim( AS \w+)?$/)
    assert.match(only('USER'), /^[1-9]\d*:[1-9]\d*$/)
    assert.equal(only('STOPSIGNAL'), 'SIGTERM')
    assert.equal(only('EXPOSE'), imageEnv.PORT)
    assert.equal(only('VOLUME'), imageEnv.DATA_DIR)
  })

  test('is labelled', () => {
    const labels = pairsOf(only('LABEL'))
    for (const name of ['title', 'description', 'licenses', 'version', 'revision'])
      assert.ok(labels[`org.opencontainers.image.${name}`], name)
    const { version, license } = JSON.parse(read(root, 'package.json'))
    assert.ok(final('ARG').some(({ rest }) => rest === `VERSION=${version}`))
    assert.equal(labels['org.opencontainers.image.licenses'], license)
  })

  test('sets only settings, and leaves it to the operator whether to run without authentication', () => {
    const { NODE_ENV, ...own } = imageEnv
    assert.equal(NODE_ENV, 'production')
    assertSettings(Object.keys(own))
    assert.throws(() => readConfig(own), /AUTH=none/)
    assert.equal(readConfig({ ...own, AUTH: 'none' }).host, '0.0.0.0')
  })

  test('its command line is one that the program understands', async () => {
    const [node, file, ...args] = [...JSON.parse(only('ENTRYPOINT')), ...JSON.parse(only('CMD'))] as string[]
    assert.equal(node, 'node')
    const { stdout } = await run(process.execPath, ['--import', 'tsx', file ?? '', ...args, '--help'], { cwd: root })
    assert.match(stdout, /serve the registry/)
  })

  test('its health check passes when /healthz answers 200, and only then', async () => {
    const [, ...args] = JSON.parse(only('HEALTHCHECK').replace(/^.*?CMD /, '')) as string[]
    let status = 200
    const server = createServer((request, response) => {
      response.writeHead(request.url === '/healthz' ? status : 404).end()
    })
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    const address = server.address()
    const PORT = String(typeof address === 'object' && address ? address.port : 0)
    const probe = () => run(process.execPath, args, { env: { PATH: process.env.PATH, PORT } })
    await probe()
    status = 503
    await assert.rejects(probe())
    await new Promise((done) => server.close(done))
    await assert.rejects(probe())
  })
})
