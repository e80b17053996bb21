import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Delivery, DeliveryState, NewWebhook, WebhookState } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { connect } from './connect.ts'
import { aligned, table } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type AddFlags = CommonFlags & {
  type?: string[]
  pack?: string[]
  description?: string
  disabled?: true
  allowPrivate?: true
  allowHttp?: true
  tries?: number
}
type DeliveriesFlags = CommonFlags & { state?: DeliveryState; limit: number }

/** The commands for where events are sent to. */
export function addWebhook(packs: Command, here: Here): void {
  const webhook = packs.command('webhook').description('addresses that events are sent to, signed')
  webhook.addHelpText('after', '\nExample:\n  packs webhook list')
  addAdd(webhook, here)
  const listing = webhook.command('list').description('list the webhooks, and how each goes')
  common(listing, 'packs webhook list').action((flags: CommonFlags) => run(here, flags, list))
  const named = (command: string, words: string, example: string, work: (at: Run, name: string) => Promise<void>) =>
    common(webhook.command(command).description(words).argument('<name>', 'its name'), example).action(
      (name: string, flags: CommonFlags) => run(here, flags, (at) => work(at, name)),
    )
  named('show', 'say all there is to know of a webhook but its secret', 'packs webhook show ci', show)
  named('remove', 'forget a webhook, with what waits for it and its log', 'packs webhook remove ci', remove)
  named('enable', 'send to a webhook again, from now on', 'packs webhook enable ci', (at, name) =>
    enable(at, name, true),
  )
  named('disable', 'send nothing to a webhook; what waits, waits', 'packs webhook disable ci', (at, name) =>
    enable(at, name, false),
  )
  named('test', 'send a message to a webhook now, and say what came of it', 'packs webhook test ci', test)
  addDeliveries(webhook, here)
}

function addAdd(webhook: Command, here: Here): void {
  const many = (value: string, before: string[] = []) => [...before, value]
  const adding = webhook
    .command('add')
    .description('have events sent to an address; the secret that signs them is said this once')
    .argument('<name>', 'what it is to be called')
    .argument('<url>', 'where events are sent to, such as https://ci.example/hooks/packs')
    .option('--type <type>', 'only these, such as pack.published or "pack.*"; may be repeated (default: all)', many)
    .option('--pack <pattern>', 'only of this pack, with * for any characters; may be repeated (default: all)', many)
    .option('--description <text>', 'what it is for')
    .option('--disabled', 'send nothing yet')
    .option('--allow-private', 'it may have a private or loopback address')
    .option('--allow-http', 'it may be http, which everybody on the way can read')
    .option('--tries <count>', 'how often a delivery is tried (default: 16, which take about a day)', countOf)
  common(adding, 'packs webhook add ci https://ci.example/hooks/packs --type pack.published --pack "net-*"').action(
    (name: string, url: string, flags: AddFlags) => run(here, flags, (at) => add(at, name, url, flags)),
  )
}

function addDeliveries(webhook: Command, here: Here): void {
  const listing = webhook
    .command('deliveries')
    .description('what was sent to a webhook, or waits to be; or the attempts at one of them')
    .argument('<name>', 'its name')
    .argument('[delivery]', 'the id of one, to see its attempts')
    .addOption(new Option('--state <state>', 'only these').choices(['waiting', 'delivered', 'dead']))
    .option('--limit <count>', 'at most so many', countOf, 50)
  common(listing, 'packs webhook deliveries ci --state dead').action(
    (name: string, id: string | undefined, flags: DeliveriesFlags) =>
      run(here, flags, (at) => (id === undefined ? deliveries(at, name, flags) : delivery(at, name, id))),
  )
  const again = webhook
    .command('redeliver')
    .description('send a delivery that has ended again, or all that were given up')
    .argument('<name>', 'its name')
    .argument('[delivery]', 'the id of one')
    .option('--dead', 'all that were given up')
  common(again, 'packs webhook redeliver ci --dead').action(
    (name: string, id: string | undefined, flags: CommonFlags & { dead?: true }) =>
      run(here, flags, (at) => redeliver(at, name, id, flags)),
  )
}

function countOf(text: string): number {
  if (/^[1-9]\d{0,6}$/.test(text)) return Number(text)
  throw new InvalidArgumentError('It is a whole number above 0.')
}

async function add(at: Run, name: string, url: string, flags: AddFlags): Promise<void> {
  const { type, pack, description, disabled, allowPrivate, allowHttp, tries } = flags
  const wanted: NewWebhook = {
    ...{ name, url, enabled: !disabled },
    ...(type ? { types: type } : {}),
    ...(pack ? { packs: pack } : {}),
    ...(description ? { description } : {}),
    options: {
      ...(allowPrivate ? { allowPrivate } : {}),
      ...(allowHttp ? { allowHttp } : {}),
      ...(tries ? { tries } : {}),
    },
  }
  const added = await (await connect(at)).webhooks.add(wanted, { signal: at.signal })
  at.output.note('keep this secret; it is not shown again:')
  at.output.result(added, () => `${added.secret}\n`)
}

async function list(at: Run): Promise<void> {
  const webhooks = await (await connect(at)).webhooks.list({ signal: at.signal })
  at.output.result({ webhooks }, () =>
    table(
      ['NAME', 'STATE', 'WAITING', 'DEAD', 'TYPES', 'PACKS', 'URL'],
      webhooks.map(({ name, waiting, dead, types, packs, url, ...rest }) => [
        ...[name, stateOf(rest), String(waiting), String(dead), types.join(' '), packs.join(' '), url],
      ]),
    ),
  )
  if (!at.output.json && webhooks.length === 0) at.output.note('there is no webhook; packs webhook add sets one up')
}

function stateOf({ enabled, failingSince }: Pick<WebhookState, 'enabled' | 'failingSince'>): string {
  if (!enabled) return 'disabled'
  return failingSince === undefined ? 'ok' : 'failing'
}

async function show(at: Run, name: string): Promise<void> {
  const webhook = await (await connect(at)).webhooks.show(name, { signal: at.signal })
  at.output.result({ webhook }, () =>
    aligned(
      Object.entries(webhook).map(([key, value]) => [key, typeof value === 'string' ? value : JSON.stringify(value)]),
    ),
  )
}

async function remove(at: Run, name: string): Promise<void> {
  const removed = await (await connect(at)).webhooks.remove(name, { signal: at.signal })
  at.output.result({ removed }, () => (removed ? `removed ${name}\n` : `there was no webhook ${name}\n`))
}

async function enable(at: Run, name: string, enabled: boolean): Promise<void> {
  const webhook = await (await connect(at)).webhooks.change(name, { enabled }, { signal: at.signal })
  at.output.result({ webhook }, () => `${name} is ${enabled ? 'enabled' : 'disabled'}\n`)
}

async function test(at: Run, name: string): Promise<void> {
  const told = await (await connect(at)).webhooks.test(name, { signal: at.signal })
  const { delivered, status, error, durationMs } = told
  if (!delivered) throw new PacksError('WEBHOOK_FAILED', `${name} did not take it: ${inWords(status, error)}`)
  at.output.result(told, () => `${name} took it: ${status} in ${durationMs} ms\n`)
}

function inWords(status: number | undefined, error: string | undefined): string {
  return [error, status === undefined ? undefined : `status ${status}`].filter(Boolean).join(', ')
}

async function deliveries(at: Run, name: string, { state, limit }: DeliveriesFlags): Promise<void> {
  const { webhooks } = await connect(at)
  const found: Delivery[] = []
  let more = false
  const query = { state, pageSize: Math.min(limit + 1, 1000) }
  for await (const one of webhooks.deliveries(name, query, { signal: at.signal })) {
    more = found.length === limit
    if (more) break
    found.push(one)
  }
  at.output.result({ deliveries: found, more }, () =>
    table(
      ['DELIVERY', 'STATE', 'TRIES', 'TYPE', 'ABOUT', 'QUEUED', 'LAST'],
      found.map(({ id, state, tries, type, subject, queuedAt, status, error }) => [
        ...[id, state, String(tries), type, subject, queuedAt, inWords(status, error) || '-'],
      ]),
    ),
  )
  if (at.output.json) return
  if (found.length === 0) at.output.note('there is no such delivery')
  if (more) at.output.note(`there are more: --limit ${limit * 2}`)
}

async function delivery(at: Run, name: string, id: string): Promise<void> {
  const found = await (await connect(at)).webhooks.delivery(name, id, { signal: at.signal })
  at.output.result(found, () => {
    const facts = Object.entries(found.delivery).map(([key, value]) => [key, String(value)])
    const rows = found.attempts.map(({ at: time, durationMs, status, error }) => [
      ...[time, `${durationMs} ms`, inWords(status, error)],
    ])
    return `${aligned(facts)}\n${table(['ATTEMPT', 'TOOK', 'CAME TO'], rows)}`
  })
}

async function redeliver(at: Run, name: string, id: string | undefined, { dead }: { dead?: true }): Promise<void> {
  if ((id === undefined) !== Boolean(dead))
    throw new PacksError('USAGE', 'give the id of a delivery, or --dead for all that were given up')
  const redelivered = await (await connect(at)).webhooks.redeliver(name, id, { signal: at.signal })
  at.output.result({ redelivered }, () => `${redelivered} ${redelivered === 1 ? 'waits' : 'wait'} to be sent again\n`)
}
