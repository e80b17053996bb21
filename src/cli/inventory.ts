import type { Command } from 'commander'
import { type ReadInventory, readInventory } from '../bundles/inventory.ts'
import { PacksError } from '../client/failure.ts'
import { Failure } from '../errors.ts'
import { inWords } from './bundle.ts'
import { connect } from './connect.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'
import { replaceFile } from './temporary.ts'

type Flags = CommonFlags & { output?: string }

export function addInventory(packs: Command, here: Here): void {
  const command = packs
    .command('inventory')
    .description('list what a registry holds, for "packs export --since" at another site to leave it out')
    .option('-o, --output <file>', 'write it to this file (default: standard output)')
  common(command, 'packs inventory -o inventory.json').action((flags: Flags) =>
    run(here, flags, (at) => inWords(() => writeInventory(at, flags))),
  )
}

async function writeInventory(at: Run, { output: file }: Flags): Promise<void> {
  const client = await connect(at)
  const bytes = await client.bundles.inventory({ signal: at.signal })
  const { inventory, digest, isSigned } = inventoryIn(bytes)
  if (file === undefined) {
    process.stdout.write(bytes)
    if (process.stdout.isTTY) process.stdout.write('\n')
    return
  }
  await replaceFile(file, bytes)
  const blobs = inventory.blobs.length / 32 + inventory.otherBlobs.length
  const versions = inventory.packs.reduce((sum, pack) => sum + pack.versions.length, 0)
  at.output.result(
    { file, digest, blobs, versions, isSigned },
    () => `${file} lists ${blobs} blobs of ${versions} versions, ${isSigned ? 'signed' : 'not signed'}`,
  )
}

/** What a registry answered. Before any of it is written: what is no inventory is none of a registry. */
function inventoryIn(bytes: Uint8Array): ReadInventory {
  try {
    return readInventory(JSON.parse(Buffer.from(bytes).toString()), [])
  } catch (error) {
    throw notInventory(error)
  }
}

function notInventory(cause: unknown): PacksError {
  const why = cause instanceof Failure ? cause.detail : (cause as Error).message
  return new PacksError('ANSWER_INVALID', `the answer is no inventory: ${why}`, { cause })
}
