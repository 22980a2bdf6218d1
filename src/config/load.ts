/** Finds, reads and checks the configuration file. Messages name file, line and column, and never echo a value. */

import { open, readFile, stat } from 'node:fs/promises';
import { VmcorralError } from '../model/errors.js';
import { type Completion, type ConfigProblem, completeConfig } from './complete.js';
import { type Config, redactConfig } from './config.js';
import { type FilePosition, parseYaml, type YamlProblem } from './positions.js';
import { describeIssue } from './problem-text.js';
import { configFileSchema } from './schema.js';

export type { Config } from './config.js';

export const DEFAULT_CONFIG_FILE = '/etc/vmcorral/vmcorral.yaml';
const MAX_FILE_BYTES = 1024 * 1024;
const MAX_PASSWORD_BYTES = 4096;

/** A fault of the file; `line` and `column` count from 1. */
export interface FileProblem extends FilePosition {
  /** Key from the top, joined by dots; empty for the file as a whole. */
  readonly key: string;
  readonly message: string;
}

export interface ConfigReport {
  /** The file that was looked at; undefined when there is none and the defaults hold. */
  readonly file: string | undefined;
  readonly problems: readonly FileProblem[];
  /** What works but should be mended. */
  readonly warnings: readonly string[];
  /** What results, secrets replaced; there when `problems` is empty. */
  readonly config?: Config;
}

/**
 * The configuration: from `path`, else the file that VMCORRAL_CONFIG names, else /etc/vmcorral/vmcorral.yaml, else
 * the defaults.
 * @throws CONFIG with `FILE:LINE:COLUMN` in the sentence and as facts
 */
export async function loadConfig(path?: string): Promise<Config> {
  const file = await findConfigFile(path);
  const { completion, problems } = await readConfigFile(file);
  const first = problems[0];
  if (!first && completion) return completion.config;
  throw configError(file ?? '', problems);
}

/** What `config check` says: all problems instead of the first. Throws for nothing that it finds in the file. */
export async function checkConfig(path?: string): Promise<ConfigReport> {
  const file = await findConfigFile(path);
  const { completion, problems } = await readConfigFile(file);
  if (problems.length > 0 || !completion) return { file, problems, warnings: [] };
  const { config } = completion;
  return { file, problems, warnings: await listWarnings(file, config), config: redactConfig(config) };
}

/**
 * Which file counts; undefined when none is named and the usual one isn't there.
 * @throws CONFIG when a file that was named explicitly is missing
 */
export async function findConfigFile(path?: string): Promise<string | undefined> {
  const named = path ?? process.env.VMCORRAL_CONFIG;
  const file = named === undefined || named === '' ? DEFAULT_CONFIG_FILE : named;
  const found = await stat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
    throw cannotRead(file, error);
  });
  if (found) return file;
  if (file === DEFAULT_CONFIG_FILE && path === undefined) return undefined;
  throw new VmcorralError('CONFIG', `there is no configuration file ${file}`, {
    hint: path === undefined ? 'VMCORRAL_CONFIG names it: correct or unset it' : 'correct --config, or leave it out',
    facts: { path: file },
  });
}

interface ReadResult {
  readonly completion?: Completion;
  readonly problems: readonly FileProblem[];
}

async function readConfigFile(file: string | undefined): Promise<ReadResult> {
  if (file === undefined) return checkContent({}, () => ({ line: 1, column: 1 }));
  const text = await readBounded(file, MAX_FILE_BYTES);
  const parsed = await parseYaml(text);
  if (parsed.problems.length > 0) return { problems: parsed.problems.map(yamlProblem) };
  return checkContent(parsed.content, parsed.locate);
}

type Locate = (path: readonly PropertyKey[], key?: string) => FilePosition;

async function checkContent(content: unknown, locate: Locate): Promise<ReadResult> {
  const result = configFileSchema.safeParse(content);
  if (!result.success) {
    return { problems: inOrder(result.error.issues.flatMap((issue) => describeIssue(issue, content, locate))) };
  }
  const { passwordFile } = result.data.redis;
  let password: string | undefined;
  const problems: ConfigProblem[] = [];
  if (passwordFile !== undefined) {
    try {
      password = (await readBounded(passwordFile, MAX_PASSWORD_BYTES)).replace(/\r?\n$/, '');
      if (password === '') problems.push({ path: ['redis', 'passwordFile'], message: `${passwordFile} is empty` });
    } catch (error) {
      if (!(error instanceof VmcorralError)) throw error;
      problems.push({ path: ['redis', 'passwordFile'], message: error.message });
    }
  }
  const completion = completeConfig(result.data, password);
  const all = [...problems, ...completion.problems];
  return {
    completion,
    problems: inOrder(all.map(({ path, message }) => ({ ...locate(path), key: path.join('.'), message }))),
  };
}

/** As in the file; what is missing comes last, since the mistyped key beside it says more. */
function inOrder(problems: FileProblem[]): FileProblem[] {
  const isMissing = (problem: FileProblem) => (problem.message === 'is missing' ? 1 : 0);
  return problems.sort((a, b) => isMissing(a) - isMissing(b) || a.line - b.line || a.column - b.column);
}

function yamlProblem({ line, column, message }: YamlProblem): FileProblem {
  return { line, column, key: '', message };
}

function configError(file: string, problems: readonly FileProblem[]): VmcorralError {
  const first = problems[0] ?? { line: 1, column: 1, key: '', message: 'is not a configuration' };
  const key = first.key === '' ? '' : `${first.key}: `;
  return new VmcorralError('CONFIG', `${file}:${first.line}:${first.column}: ${key}${first.message}`, {
    hint:
      problems.length > 1
        ? `${problems.length - 1} more: see all of them with \`vmcorral config check\``
        : 'config/vmcorral.example.yaml explains every key',
    facts: { path: file, line: first.line, column: first.column, key: first.key, problems: problems.length },
  });
}

/** Reads a small file; one that is larger isn't read at all. */
async function readBounded(file: string, maxBytes: number): Promise<string> {
  try {
    const handle = await open(file);
    try {
      const { size } = await handle.stat();
      if (size > maxBytes) {
        throw new VmcorralError('CONFIG', `${file} is too large: ${size} bytes, at most ${maxBytes}`, {
          facts: { path: file, sizeBytes: size, maxBytes },
        });
      }
      return await readFile(handle, 'utf8');
    } finally {
      await handle.close();
    }
  } catch (error) {
    if (error instanceof VmcorralError) throw error;
    throw cannotRead(file, error);
  }
}

function cannotRead(file: string, error: unknown): VmcorralError {
  const reason = error instanceof Error && 'code' in error ? String(error.code) : 'unknown fault';
  return new VmcorralError('CONFIG', `can't read ${file}: ${reason}`, {
    hint: 'check its owner and mode; vmcorral runs as root on a hypervisor host',
    facts: { path: file },
    cause: error,
  });
}

async function listWarnings(file: string | undefined, config: Config): Promise<string[]> {
  const warnings: string[] = [];
  if (config.redis.mode === 'embedded') return warnings;
  const { password, tls, url } = config.redis;
  if (file !== undefined && password !== undefined && ((await stat(file)).mode & 0o077) !== 0) {
    warnings.push(`${file} holds a password and other users may read it: chmod 600, or use redis.passwordFile`);
  }
  if (
    password !== undefined &&
    !tls &&
    url !== undefined &&
    !/^(unix:|redis:\/\/(localhost|127\.|\[::1\]))/.test(url)
  ) {
    warnings.push('redis.url is not encrypted: the password crosses the network in clear; use rediss://');
  }
  for (const [key, path] of Object.entries({ ca: tls?.ca, cert: tls?.cert, key: tls?.key })) {
    if (path === undefined) continue;
    const readable = await stat(path).then(
      () => true,
      () => false,
    );
    if (!readable) warnings.push(`redis.tls.${key}: ${path} can't be read`);
  }
  return warnings;
}
