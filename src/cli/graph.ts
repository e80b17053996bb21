import type { Command } from 'commander'
import type { Dependent, Lock, LockedPack } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { connect } from './connect.ts'
import { table } from './output.ts'
import { parseReference } from './reference.ts'
import { type ResolveFlags, resolveRoots } from './resolve.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type Flags = CommonFlags & Pick<ResolveFlags, 'runner' | 'channel'>

/** The commands that show who needs whom. */
export function addGraph(packs: Command, here: Here): void {
  const deps = packs
    .command('deps')
    .description('show what a pack needs, as a tree of the versions that would be chosen now')
    .argument('<pack>', 'id, or id@ and a version, a range or a channel')
  withChoice(common(deps, 'packs deps net-policy@1.4.0')).action((pack: string, flags: Flags) =>
    run(here, flags, (at) => showDependencies(at, pack, flags)),
  )
  const dependents = packs
    .command('dependents')
    .description('list the versions of other packs that need a version')
    .argument('<pack>', 'id, or id@ and a version, a range or a channel; the latest version unless given')
  common(dependents, 'packs dependents net-rules@1.2.0').action((pack: string, flags: CommonFlags) =>
    run(here, flags, (at) => showDependents(at, pack)),
  )
  const why = packs
    .command('why')
    .description('show by which requirements a pack gets in when others are resolved')
    .argument('<id>', 'the pack that is asked about')
    .argument('<roots...>', 'what is resolved: id, or id@ and a version, a range or a channel')
  withChoice(common(why, 'packs why net-rules all-policies@^2 scanner')).action(
    (id: string, roots: string[], flags: Flags) => run(here, flags, (at) => explain(at, id, roots, flags)),
  )
}

function withChoice(command: Command): Command {
  return command
    .option('--runner <version>', 'only what this runner can run')
    .option('--channel <name>', 'prefer what this channel points at, for every pack that has it')
}

/** A node of the tree. A pack that stands further up already is not spread out again: `repeated`. */
type Node = {
  packId: string
  range: string
  version?: string
  optional?: true
  repeated?: true
  dependencies?: Node[]
}

async function showDependencies(at: Run, text: string, flags: Flags): Promise<void> {
  const { lock } = await resolveRoots(at, await connect(at), [text], flags)
  const versions = byId(lock)
  const [root] = lock.roots
  if (!root) throw new PacksError('ANSWER_INVALID', 'the registry answered a lock without roots')
  const tree = nodeOf(versions, { packId: root.packId, version: root.version }, new Set())
  at.output.result({ packId: tree.packId, version: tree.version, dependencies: tree.dependencies ?? [] }, () =>
    [`${tree.packId} ${tree.version ?? ''}`, ...branchesOf(tree.dependencies ?? [], '')].join('\n'),
  )
}

function byId({ packs }: Lock): Map<string, LockedPack> {
  return new Map(packs.map((pack) => [pack.packId, pack]))
}

type Required = { packId: string; version: string; optional?: true }

function nodeOf(versions: Map<string, LockedPack>, required: Required, seen: Set<string>): Node {
  const { packId, version: range, optional } = required
  const pack = versions.get(packId)
  const node: Node = { packId, range, ...(optional ? { optional } : {}) }
  if (!pack) return node
  const { version, dependencies } = pack
  if (dependencies.length > 0 && seen.has(packId)) return { ...node, version, repeated: true }
  seen.add(packId)
  return { ...node, version, dependencies: dependencies.map((needed) => nodeOf(versions, needed, seen)) }
}

function branchesOf(nodes: readonly Node[], indent: string): string[] {
  return nodes.flatMap((node, i) => {
    const isLast = i === nodes.length - 1
    const lines = `${indent}${isLast ? '└── ' : '├── '}${nodeText(node)}`
    return [lines, ...branchesOf(node.dependencies ?? [], `${indent}${isLast ? '    ' : '│   '}`)]
  })
}

function nodeText({ packId, range, version, optional, repeated }: Node): string {
  const notes = [range, optional && 'optional', repeated && 'see above'].filter(Boolean).join(', ')
  return `${packId} ${version ?? 'left out'} (${notes})`
}

async function showDependents(at: Run, text: string): Promise<void> {
  const { packId, selector } = parseReference(text)
  const client = await connect(at)
  const { version } = await client.pack(packId, { version: selector, signal: at.signal })
  const dependents = await client.dependents(packId, version, { signal: at.signal })
  at.output.result({ packId, version, dependents }, () =>
    dependents.length === 0
      ? `no pack needs ${packId} ${version}`
      : table(['PACK', 'VERSION', 'NEEDS', 'STATE'], dependents.map(rowOf)),
  )
}

function rowOf({ packId, version, range, optional, state }: Dependent): string[] {
  return [packId, version, `${range}${optional ? ' (optional)' : ''}`, state]
}

/** A chain of requirements: the first is a root's, each next one is the one before's. */
type Chain = { packId: string; version: string; range: string }[]

/** A closure may have more ways to a pack than anybody reads: no more are looked for. */
const mostChains = 50

async function explain(at: Run, id: string, roots: string[], flags: Flags): Promise<void> {
  const { packId } = parseReference(id)
  const { lock } = await resolveRoots(at, await connect(at), roots, flags)
  const version = byId(lock).get(packId)?.version
  const chains = chainsTo(lock, packId, mostChains + 1)
  const shown = chains.slice(0, mostChains)
  const more = chains.length > mostChains
  at.output.result({ packId, ...(version ? { version } : {}), chains: shown, more }, () => {
    if (!version) return `${packId} does not get in: nothing that is resolved needs it`
    const lines = shown.map(
      (chain) => `  ${chain.map((step) => `${step.packId} ${step.version} (${step.range})`).join(' → ')}`,
    )
    return [`${packId} ${version} gets in by`, ...lines, ...(more ? ['  and in more ways'] : [])].join('\n')
  })
}

/** The ways from the roots to a pack, the shortest first; at most so many. */
function chainsTo(lock: Lock, target: string, most: number): Chain[] {
  const versions = byId(lock)
  const leads = leadingTo(lock, target)
  const found: Chain[] = []
  const step = ({ packId, version: range }: { packId: string; version: string }) => ({
    packId,
    range,
    version: versions.get(packId)?.version ?? '',
  })
  let open: Chain[] = lock.roots.filter(({ packId }) => leads.has(packId)).map((root) => [step(root)])
  // Every chain leads to the target, so as many as are wanted are enough of each length.
  for (; open.length > 0 && found.length < most; open = next(open).slice(0, most))
    found.push(...open.filter((chain) => chain.at(-1)?.packId === target))
  return found.slice(0, most)

  function next(chains: Chain[]): Chain[] {
    return chains
      .filter((chain) => chain.at(-1)?.packId !== target)
      .flatMap((chain) =>
        (versions.get(chain.at(-1)?.packId ?? '')?.dependencies ?? [])
          .filter(({ packId, resolved }) => resolved && leads.has(packId) && !chain.some((s) => s.packId === packId))
          .map((needed) => [...chain, step(needed)]),
      )
  }
}

/** The packs from which a way leads to this one, itself among them. */
function leadingTo({ packs }: Lock, target: string): Set<string> {
  const needers = new Map<string, string[]>()
  for (const { packId, dependencies } of packs)
    for (const needed of dependencies)
      if (needed.resolved) needers.set(needed.packId, [...(needers.get(needed.packId) ?? []), packId])
  const leads = new Set([target])
  for (const packId of leads) for (const needer of needers.get(packId) ?? []) leads.add(needer)
  return leads
}
