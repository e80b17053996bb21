import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { Readable, type Transform } from 'node:stream'
import * as zlib from 'node:zlib'
import { Failure } from '../errors.ts'
import { invalid } from './contents.ts'

const gzipMagic = Buffer.from([0x1f, 0x8b])
const zstdMagic = Buffer.from([0x28, 0xb5, 0x2f, 0xfd])
/** What a decompressor hands on at once; the streams' own 16 KiB cost four times the calls. */
const chunkSize = 256 * 1024

/**
 * The stream itself, or decompressed where its first bytes say gzip or zstd. `close` ends whatever reads the source;
 * the source itself stays its owner's. Throws the source's error where it fails before its first bytes.
 */
export async function unpacked(
  source: Readable,
): Promise<{ pieces: Readable; isCompressed: boolean; close: () => void }> {
  const start = await firstBytes(source, zstdMagic.length)
  const stage = stageFor(start)
  if (!stage) return { pieces: source, isCompressed: false, close: () => source.pause() }
  const onError = (error: Error) => stage.input.destroy(error)
  const onClose = () => source.readableEnded || stage.input.destroy(new Error('the source was closed before its end'))
  source.on('error', onError).on('close', onClose)
  // A program that has ended does not read on; why it ended is told where its output is read.
  stage.input.on('error', () => undefined)
  source.pipe(stage.input)
  const close = () => {
    source.unpipe(stage.input)
    source.off('close', onClose).pause()
    stage.input.destroy()
    stage.output.destroy()
  }
  return { pieces: stage.output, isCompressed: true, close }
}

type Stage = { input: NodeJS.WritableStream & { destroy(error?: Error): void }; output: Readable }

function stageFor(start: Buffer): Stage | undefined {
  if (start.subarray(0, gzipMagic.length).equals(gzipMagic)) return inProcess(zlib.createGunzip({ chunkSize }))
  if (!start.equals(zstdMagic)) return undefined
  // Node has zstd from 22.15 on.
  const { createZstdDecompress } = zlib as { createZstdDecompress?: (options: object) => Transform }
  return createZstdDecompress ? inProcess(createZstdDecompress({ chunkSize })) : byProgram()
}

function inProcess(stage: Transform): Stage {
  return { input: stage, output: stage }
}

/** The `zstd` program; it refuses windows above 128 MiB by itself, so its memory is bounded too. */
function byProgram(): Stage {
  const program = spawn('zstd', ['--decompress', '--stdout', '--quiet'], { stdio: ['pipe', 'pipe', 'pipe'] })
  let said = ''
  program.stderr.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(0, 500)
  })
  // Either way it ends; which of the two came is asked when its output has ended.
  const ended = once(program, 'close').catch((error: Error) => [error])
  async function* output(): AsyncGenerator<Buffer> {
    try {
      yield* program.stdout
      const [code] = (await ended) as [number | null | Error]
      if (code instanceof Error)
        throw new Failure('BUNDLE_INVALID', {
          detail:
            'it is compressed by zstd: Node 22.15 or newer reads that by itself, older ones need the program zstd',
          cause: code,
        })
      if (code !== 0) throw invalid(`the compressed data is damaged or cut off: ${said.trim() || 'zstd gave up'}`)
    } finally {
      program.kill()
    }
  }
  return { input: program.stdin, output: Readable.from(output(), { objectMode: false }) }
}

/** The first bytes of a stream, left in it; fewer where it is shorter. */
async function firstBytes(source: Readable, count: number): Promise<Buffer> {
  let start: Buffer | null = source.read(count)
  while (start === null && !source.readableEnded) {
    await readableOrEnded(source)
    start = source.read(count)
  }
  if (start) source.unshift(start)
  return start ?? Buffer.alloc(0)
}

function readableOrEnded(source: Readable): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (error?: Error) => {
      source.off('readable', onReadable).off('end', onReadable).off('error', settle).off('close', onClose)
      error ? reject(error) : resolve()
    }
    const onReadable = () => settle()
    const onClose = () => settle(source.errored ?? new Error('the source was closed before its end'))
    if (source.destroyed) return onClose()
    source.on('readable', onReadable).on('end', onReadable).on('error', settle).on('close', onClose)
  })
}
