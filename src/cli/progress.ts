import type { SingleBar } from 'cli-progress'
import { bytesText, type Output, printable } from './output.ts'

/** Files on their way: a bar with a rate for each on a terminal, a line at the start and the end of each off one. */
export type Progress = {
  /** `bytes` of `size` of this file are done. A file that did not begin yet begins. */
  moved(name: string, bytes: number, size: number): void
  /** Nothing more comes; bars that stand on the terminal are left as they are. */
  end(): void
}

/** `verbs`: what a file's line says at its start and its end, such as "pulling" and "pulled". */
export async function openProgress(output: Output, verbs: { start: string; end: string }): Promise<Progress> {
  if (output.quiet) return { moved: () => undefined, end: () => undefined }
  return output.live ? bars(verbs) : lines(output, verbs)
}

function lines(output: Output, verbs: { start: string; end: string }): Progress {
  const started = new Map<string, number>()
  const ended = new Set<string>()
  return {
    moved(name, bytes, size) {
      if (!started.has(name)) {
        started.set(name, performance.now())
        output.note(`${verbs.start} ${name} (${bytesText(size)})`)
      }
      if (bytes < size || ended.has(name)) return
      ended.add(name)
      const seconds = (performance.now() - (started.get(name) ?? 0)) / 1000
      output.note(`${verbs.end} ${name} (${bytesText(size)} in ${seconds.toFixed(1)} s)`)
    },
    end: () => undefined,
  }
}

async function bars(verbs: { start: string; end: string }): Promise<Progress> {
  const { MultiBar } = await import('cli-progress')
  const all = new MultiBar({
    format: '{verb} {name} {bar} {percentage}% {done} of {all} {rate}',
    barsize: 24,
    hideCursor: true,
    stopOnComplete: false,
    stream: process.stderr,
    gracefulExit: false,
  })
  const open = new Map<string, { bar: SingleBar; startedAt: number }>()
  return {
    moved(name, bytes, size) {
      const startedAt = performance.now()
      const { bar, startedAt: since } = open.get(name) ?? { bar: all.create(Math.max(size, 1), 0), startedAt }
      open.set(name, { bar, startedAt: since })
      const seconds = (performance.now() - since) / 1000
      bar.update(size === 0 ? 1 : bytes, {
        verb: bytes < size ? verbs.start : verbs.end,
        name: printable(name),
        done: bytesText(bytes),
        all: bytesText(size),
        rate: seconds > 0.2 ? `${bytesText(bytes / seconds)}/s` : '',
      })
    },
    end: () => all.stop(),
  }
}
