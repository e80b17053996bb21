import type { Command } from 'commander'
import { readInventory } from '../bundles/inventory.ts'
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
  if (file === undefined) {
    process.stdout.write(bytes)
    if (process.stdout.isTTY) process.stdout.write('\n')
    return
  }
  const { inventory, digest, isSigned } = readInventory(JSON.parse(Buffer.from(bytes).toString()), [])
  await replaceFile(file, bytes)
  const blobs = inventory.blobs.length / 32 + inventory.otherBlobs.length
  const versions = inventory.packs.reduce((sum, pack) => sum + pack.versions.length, 0)
  at.output.result(
    { file, digest, blobs, versions, isSigned },
    () => `${file} lists ${blobs} blobs of ${versions} versions, ${isSigned ? 'signed' : 'not signed'}`,
  )
}
