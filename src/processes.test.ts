import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, it } from 'node:test'
import { promisify } from 'node:util'

let folder: string
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'packs-processes-'))
})
after(() => rm(folder, { recursive: true, force: true }))

const place = (file: string) => JSON.stringify(new URL(file, import.meta.url).href)

/** Two workers that serve, and in the first process, once they do, `then`: it may `kill` one and see what is `logged`. */
const program = (then: string) => `
  import cluster from 'node:cluster'
  import { readdirSync, readFileSync } from 'node:fs'
  import { createServer } from 'node:http'
  import { connect } from 'node:net'
  import { startWorkers } from ${place('./processes.ts')}
  import { waitFor } from ${place('./testing/wait.ts')}

  if (cluster.isWorker) createServer((_, answer) => answer.end()).listen(0, '127.0.0.1')
  else {
    let served = 0
    cluster.on('listening', () => served++)
    const logged = []
    const log = (facts, text) => logged.push({ ...facts, code: facts.error?.code, text })
    const workers = startWorkers(2, () => ({}), { warn: log, error: log })
    const port = await workers.listening
    await waitFor('both to serve', () => served === 2)
    // Busy until it is dead with all its threads, so that nothing is heard of it.
    const kill = (worker) => {
      worker.process.kill('SIGKILL')
      const facts = '/proc/' + worker.process.pid
      while (readdirSync(facts + '/task').length > 1 || !/\\) Z [^)]*$/.test(readFileSync(facts + '/stat', 'utf8')));
    }
    const [worker] = Object.values(cluster.workers)
    ${then}
    await waitFor('another in its place', () => served === 3)
    await workers.stop()
    console.log(JSON.stringify(logged))
    process.exit()
  }`

/** What the first process has logged when all is over. Throws where it does not end well. */
async function run(then: string): Promise<{ text: string; code?: string }[]> {
  const file = join(folder, 'program.mts')
  await writeFile(file, program(then))
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', import.meta.resolve('tsx'), file])
  return JSON.parse(stdout)
}

const ended = 'a serving process ended; starting another'
const skip = existsSync('/proc/self/stat') ? false : 'no /proc to see in that a process is dead'

it('a message to a worker that is dead, and not yet seen to be, costs nothing but that worker', { skip }, async () => {
  const logged = await run("kill(worker); worker.send({ tell: 'figures', id: 0 })")
  assert.deepEqual(
    logged.map(({ text, code }) => [text, code]),
    [
      ['a serving process was told something and did not hear it', 'EPIPE'],
      [ended, undefined],
    ],
  )
})

it('a worker that cannot be started is tried again', { skip }, async () => {
  const logged = await run(`
    const { execPath } = process
    process.execPath = '/nowhere/node'
    kill(worker)
    await waitFor('a start that failed', () => logged.length >= 2)
    process.execPath = execPath`)
  const [first, ...more] = logged.map(({ text, code }) => [text, code])
  assert.deepEqual(first, [ended, undefined])
  // Once, or again where the program comes back late.
  assert.ok(more.length > 0)
  for (const one of more) assert.deepEqual(one, [ended, 'ENOENT'])
})

it('a connection that a worker was handed and did not take ends with it', { skip }, async () => {
  const logged = await run(`
    process.kill(worker.process.pid, 'SIGSTOP')
    let open = 0
    // They are handed out in turn: one at least to the worker that takes none.
    for (let n = 0; n < 4; n++) {
      const socket = connect(port, '127.0.0.1').on('error', () => {}).on('close', () => open--)
      socket.resume().write('GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n')
      open++
    }
    await waitFor('the others to be answered', () => open === 1)
    kill(worker)
    await waitFor('the last to end', () => open === 0)`)
  assert.deepEqual(
    logged.map(({ text }) => text),
    [ended],
  )
})
