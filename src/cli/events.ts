import type { Command } from 'commander'
import type { EventsQuery, PackEvent } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { connect } from './connect.ts'
import { aligned } from './output.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type EventsFlags = CommonFlags & { follow?: true; type?: string[]; pack?: string[]; after?: string }

export function addEvents(packs: Command, here: Here): void {
  const many = (value: string, before: string[] = []) => [...before, value]
  const events = packs
    .command('events')
    .description('what happened: published, deleted, yanked, channels moved, mirrored; the oldest first')
    .option('--follow', 'go on with what happens, until Ctrl-C; without --after only that')
    .option('--type <type>', 'only these, such as pack.published or "pack.*"; may be repeated', many)
    .option('--pack <pattern>', 'only of this pack, with * for any characters; may be repeated', many)
    .option('--after <sequence>', 'only what came after this event: the number that begins its line')
  common(events, 'packs events --follow --type pack.published --pack "net-*"').action((flags: EventsFlags) =>
    run(here, flags, (at) => tell(at, flags)),
  )
}

/** A line for each, as soon as it is known. In JSON, a line is an event. */
async function tell(at: Run, { follow, type, pack, after }: EventsFlags): Promise<void> {
  if (after !== undefined && !/^\d{1,16}$/.test(after))
    throw new PacksError('USAGE', '--after takes the number that begins the line of an event')
  const { events } = await connect(at)
  const query: EventsQuery = { types: type, packs: pack, after, pageSize: 1000 }
  const found = follow ? events.follow(query, { signal: at.signal }) : events.list(query, { signal: at.signal })
  let count = 0
  for await (const event of found) {
    count++
    const isTaken = process.stdout.write(at.output.json ? `${JSON.stringify(event)}\n` : lineOf(event))
    if (!isTaken) await new Promise<void>((resolve) => process.stdout.once('drain', resolve))
  }
  if (count === 0 && !at.output.json) at.output.note('nothing of that has happened')
}

const shown = ['from', 'to', 'state', 'message', 'error', 'clean', 'digest'] as const

function lineOf({ sequence, time, type, subject, data }: PackEvent): string {
  const name = type.replace(/^org\.stellaops\.registry\.|\.v\d+$/g, '')
  const facts = shown.flatMap((key) => (data[key] === undefined ? [] : [`${key}=${data[key]}`]))
  return aligned([[sequence.replace(/^0+/, ''), time, name.padEnd(18), subject, ...facts]])
}
