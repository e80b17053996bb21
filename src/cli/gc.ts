import type { Config } from '../config.ts'
import type { Deps } from '../deps.ts'
import { openLog } from '../log.ts'
import { collectEverything, type WholePass } from '../registry/collect-pass.ts'
import { type Finding, planCollection } from '../registry/collect-plan.ts'
import { beside } from './beside.ts'
import { exitCodes } from './failure.ts'
import { bytesText, type Output, printable } from './output.ts'

export type GcFlags = { dryRun?: boolean | undefined; rate?: number | undefined }

/**
 * Collects now what else the jobs collect by and by; or says what would go, and why. Answers the exit code. The server
 * may be running. To cut it off at any moment does no harm.
 */
export function gc(
  config: Config,
  { dryRun = false, rate }: GcFlags,
  output: Output,
  say: (text: string) => void = (text) => process.stdout.write(text),
): Promise<number> {
  return beside(
    config,
    openLog('warn'),
    async ({ deps, signal }) => {
      if (dryRun) await list(deps, output, say, signal)
      else await collect(deps, { rate, output, signal })
      return exitCodes.ok
    },
    () => output.note('stopped; what was collected so far is collected'),
  )
}

const progressMs = 2_000

async function collect(
  deps: Deps,
  { rate, output, signal }: { rate: number | undefined; output: Output; signal: AbortSignal },
): Promise<void> {
  const started = performance.now()
  let next = started + progressMs
  const done = await collectEverything(deps, {
    rate,
    signal,
    onProgress({ links, blobs, bytes, objects, kept }) {
      const now = performance.now()
      if (now < next) return
      next = now + progressMs
      const perSecond = Math.round(((links + blobs + objects + kept) / (now - started)) * 1000)
      output.note(
        `${links} links, ${blobs} blobs (${bytesText(bytes)}) and ${objects} objects so far, ${perSecond} rows/s`,
      )
    },
  })
  const seconds = (performance.now() - started) / 1000
  output.result({ dryRun: false, ...done, seconds }, () => inWords(done, seconds))
}

function inWords(done: WholePass, seconds: number): string {
  const { links, blobs, bytes, kept, objects, failed, ended, files, multipartUploads, stagedObjects } = done
  const lines = [
    `collected ${links} links and ${blobs} blobs (${bytesText(bytes)}) in ${seconds.toFixed(1)} s; ${kept} rows that were due are needed`,
    `deleted ${objects} objects from the store${failed > 0 ? `; ${failed} could not be deleted and are tried again (packs gc --dry-run says why)` : ''}`,
    `ended ${ended} uploads and imports that nobody came back to, and exports whose time is over`,
    `removed ${stagedObjects} staged objects, ${multipartUploads} multipart uploads and ${files} files that crashes had left`,
  ]
  return lines.join('\n')
}

/** Findings as they come, for there may be millions; then the totals. */
async function list(deps: Deps, output: Output, say: (text: string) => void, signal: AbortSignal): Promise<void> {
  const totals: Record<string, { count: number; bytes: number }> = {}
  let first = true
  if (output.json) say('{\n  "dryRun": true,\n  "findings": [')
  for await (const finding of planCollection(deps, { signal })) {
    const total = totals[finding.kind] ?? { count: 0, bytes: 0 }
    total.count++
    total.bytes += finding.size ?? 0
    totals[finding.kind] = total
    say(output.json ? `${first ? '' : ','}\n    ${JSON.stringify(finding)}` : `${lineOf(finding)}\n`)
    first = false
  }
  if (output.json) say(`${first ? '' : '\n  '}],\n  "totals": ${JSON.stringify(totals)}\n}\n`)
  else if (first) say('nothing would go\n')
  else
    say(
      `would go: ${Object.entries(totals)
        .map(([kind, { count, bytes }]) => `${count} ${kind}${count === 1 ? '' : 's'} (${bytesText(bytes)})`)
        .join(', ')}\n`,
    )
}

/** `link    sha256:… in team/app (1.2 KB, since 2026-01-02T03:04:05Z): no manifest of the repository needs it`. */
function lineOf({ kind, name, repository, size, since, reason }: Finding): string {
  const place = repository === undefined ? '' : ` in ${repository}`
  const facts = [size === undefined ? [] : bytesText(size), `since ${since.replace(/\.\d+Z$/, 'Z')}`].flat().join(', ')
  return printable(`${kind.padEnd(6)} ${name}${place} (${facts}): ${reason}`)
}
