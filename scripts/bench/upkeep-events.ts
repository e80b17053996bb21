import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { atEnd, scratchFolder } from './cleanup.ts'
import { startPacks } from './contestants.ts'
import { drive } from './driver.ts'
import { median } from './figures.ts'
import type { Options } from './main.ts'
import { makeRulePack, publishByForm } from './rule-pack.ts'
import type { Verdict } from './verdicts.ts'
import { expectStatus, Wire } from './wire.ts'

const mostMilliseconds = 1_000
/** What publishing may lose to a webhook that is sent every event. */
const leastShare = 0.8
/** Publishes one by one, and the pause between them. */
const [quietCount, quietPauseMs] = [200, 25]
const publishClients = 8

/**
 * How long after something happened its webhook has it: while little happens, and under as many publishes as there may be;
 * and what that takes from the rate of publishing.
 */
export async function webhooks({ rounds, seconds, processes, dir }: Options): Promise<Verdict[]> {
  const folder = await scratchFolder(dir)
  const { origin } = await startPacks({ folder, label: 'events', processes })
  const sink = await startSink()
  const wire = new Wire(origin)
  const types = ['content-type: application/json']
  const ask = async (method: string, path: string, body: object, status: number) =>
    expectStatus(
      await wire.request(method, path, types, Buffer.from(JSON.stringify(body))),
      status,
      `${method} ${path}`,
    )
  const options = { allowHttp: true, allowPrivate: true }
  await ask('POST', '/webhooks', { name: 'bench', url: sink.url, types: ['pack.published'], options }, 201)
  for (let n = 0; n < quietCount; n++) {
    await publishByForm(wire, makeRulePack('quiet', n))
    await sleep(quietPauseMs)
  }
  await sink.untilAll(quietCount)
  const quiet = sink.take()
  const publish = async () => {
    const job = { kind: 'rule-packs', form: 'facade', origin, seconds, clients: publishClients, packs: 64 } as const
    return (await drive(job)).rate
  }
  const [without, withOne]: [number[], number[]] = [[], []]
  await publish()
  for (let round = 0; round < rounds; round++) {
    await ask('PATCH', '/webhooks/bench', { enabled: false }, 200)
    without.push(await publish())
    await ask('PATCH', '/webhooks/bench', { enabled: true }, 200)
    withOne.push(await publish())
  }
  await sink.untilQuiet()
  return verdicts(quiet, sink.take(), median(without), median(withOne))
}

function verdicts(quiet: number[], busy: number[], without: number, withOne: number): Verdict[] {
  const line = (title: string, all: number[]): Verdict => {
    const sorted = all.toSorted((a, b) => a - b)
    const at = (share: number) => sorted[Math.floor((sorted.length - 1) * share)] ?? Number.NaN
    return {
      title,
      target: `p99 < ${mostMilliseconds} ms`,
      figure: `p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, of ${all.length}`,
      met: at(0.99) < mostMilliseconds,
    }
  }
  const share = withOne / without
  return [
    line('An event has reached its webhook', quiet),
    line(`  under POST /packs, ${publishClients} at once`, busy),
    {
      title: `  POST /packs, ${publishClients} at once, with a webhook ÷ without`,
      target: `≥ ${leastShare}`,
      figure: `${share.toFixed(2)}: ${Math.round(withOne)} and ${Math.round(without)} packs/s`,
      met: share >= leastShare,
    },
  ]
}

/** A receiver that notes how long ago each event was when it arrived, in milliseconds on one clock. */
async function startSink() {
  let delays: number[] = []
  let last = 0
  const server = createServer((request, response) => {
    const pieces: Buffer[] = []
    request.on('data', (piece) => pieces.push(piece))
    request.on('end', () => {
      last = Date.now()
      const { time } = JSON.parse(Buffer.concat(pieces).toString()) as { time: string }
      delays.push(last - Date.parse(time))
      response.writeHead(204).end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  atEnd(async () => {
    server.closeAllConnections()
    server.close()
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    async untilAll(count: number): Promise<void> {
      while (delays.length < count) await sleep(50)
    },
    /** Until nothing has come for two seconds. */
    async untilQuiet(): Promise<void> {
      while (Date.now() - last < 2_000) await sleep(100)
    },
    take(): number[] {
      const taken = delays
      delays = []
      return taken
    },
  }
}
