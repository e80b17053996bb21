import type { Command } from 'commander'
import type { ImportReport } from '../client/client.ts'
import { PacksError } from '../client/failure.ts'
import { type Source, withSource } from './bundle-source.ts'
import { connect } from './connect.ts'
import { bytesText, table } from './output.ts'
import { openProgress } from './progress.ts'
import { type CommonFlags, common, type Here, type Run, run } from './run.ts'

type Flags = CommonFlags & {
  dryRun?: true
  force?: true
  reason?: string
  runner?: string
  repository?: string
  async?: true
}

export function addImport(packs: Command, here: Here): void {
  const command = packs
    .command('import')
    .description('bring a bundle into the registry: all of it, or nothing')
    .argument(
      '<file>',
      'a bundle or OCI image layout (.tar, .tar.gz, .tar.zst, a folder, split volumes); - is standard input',
    )
    .option('--dry-run', 'say what would become of it, and store nothing')
    .option('--force', 'let channels go back to older versions; needs a --reason')
    .option('--reason <text>', 'why: it is kept in the report')
    .option('--runner <version>', 'refuse it unless this runner can run all of it')
    .option('--async', 'do not wait until it is published: see "packs imports"')
    .option('--repository <name>', 'packs/<id>, for the layout of another tool that does not say which pack it is')
  const example =
    'packs import packs.tar\npacks import site.tar.001 --dry-run\npacks import january.tar --force --reason "2.0 is broken"'
  common(command, `${example}\n\n${rules}`).action((path: string, flags: Flags) =>
    run(here, flags, (at) => importFile(at, path, flags)),
  )
}

const rules = `A bundle is verified as a whole before anything of it can be seen: every digest, whether it is complete, its
signature by the keys that are trusted here, and that no version changes and no channel goes back.
A connection that is lost is taken up where it was. The same bundle again changes nothing.`

async function importFile(at: Run, path: string, flags: Flags): Promise<void> {
  const { dryRun, force, reason, runner, repository } = flags
  if (force && !reason) throw new PacksError('USAGE', '--force needs a --reason: it is kept in the report')
  if (flags.async && dryRun) throw new PacksError('USAGE', '--dry-run stores nothing: it goes without --async')
  const client = await connect(at)
  const options = {
    ...(dryRun ? { dryRun } : {}),
    ...(force && reason ? { force: { reason } } : {}),
    ...(runner === undefined ? {} : { runner }),
    ...(repository === undefined ? {} : { repository }),
  }
  await withSource(at, path, async (source) => {
    if (flags.async) {
      const status = await send(at, source, (onProgress) =>
        client.imports.start(source, { ...options, onProgress, signal: at.signal }),
      )
      at.output.note(`it is verified, and ${status.state}; see: packs imports show ${status.id}`)
      return at.output.result({ import: status }, () => status.id)
    }
    const report = await send(at, source, (onProgress) =>
      client.imports.run(source, { ...options, onProgress, signal: at.signal }),
    )
    at.output.result(report, () => reportText(report, client.url))
  })
}

type OnProgress = (progress: { sentBytes: number; totalBytes: number }) => void

async function send<T>(at: Run, { name }: Source, work: (onProgress: OnProgress) => Promise<T>): Promise<T> {
  const progress = await openProgress(at.output, { start: 'sending', end: 'sent' })
  try {
    return await work(({ sentBytes, totalBytes }) => progress.moved(name, sentBytes, totalBytes))
  } catch (error) {
    throw inWords(error)
  } finally {
    progress.end()
  }
}

/** The failure with all its problems, a line each. */
function inWords(error: unknown): unknown {
  if (!(error instanceof PacksError)) return error
  const { problems } = (error.about ?? {}) as { problems?: ImportReport['problems'] }
  if (!problems || problems.length < 2) return error
  const lines = problems.map(({ packId, version, message }) =>
    packId === undefined ? `- ${message}` : `- ${packId} ${version ?? ''}: ${message}`,
  )
  return new PacksError(
    error.code,
    `nothing was imported; ${problems.length} things are in the way:\n${lines.join('\n')}`,
    {
      ...(error.about ? { about: error.about } : {}),
      cause: error,
    },
  )
}

export function reportText(report: ImportReport, url: string): string {
  const { packs, channels, changed, dryRun, blobs, referrers, signature, force } = report
  const fresh = packs.filter(({ outcome }) => outcome === 'new')
  const moved = channels.filter(({ outcome }) => outcome !== 'present')
  const head = !changed
    ? `all of it is at ${url} already; nothing to do`
    : `${dryRun ? 'would be imported' : 'imported'} at ${url}: ${fresh.length} of ${packs.length} versions are new`
  const facts = [
    `${blobs.count} blobs, ${bytesText(blobs.bytes)}`,
    ...(dryRun ? [] : [`${blobs.stored} stored (${bytesText(blobs.storedBytes)})`]),
    ...(blobs.leftOut > 0 ? [`${blobs.leftOut} were here already and left out`] : []),
    ...(referrers > 0 ? [`${referrers} referrers`] : []),
    signedBy(signature),
  ]
  const versions = fresh.map(({ packId, version, manifestDigest }) => [packId, version, manifestDigest])
  const named = moved.map(({ packId, channel, version, from }) => [
    packId,
    channel,
    version,
    from ? `was ${from}` : 'new',
  ])
  return [
    head,
    facts.join(', '),
    ...(force ? [`channels went back: ${force.reason}`] : []),
    table(['PACK', 'VERSION', 'MANIFEST'], versions),
    table(['PACK', 'CHANNEL', 'VERSION', ''], named),
  ]
    .filter(Boolean)
    .join('\n')
}

function signedBy({ kind, by = [] }: ImportReport['signature']): string {
  if (kind !== 'verified') return kind === 'missing' ? 'not signed' : 'the signature was not looked at'
  return `signed by ${by.map(({ name, keyid }) => name ?? keyid).join(', ')}`
}
