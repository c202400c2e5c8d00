import { Command, CommanderError, Option } from 'commander';
import { EXIT } from '../app/exit-codes.ts';
import { ConfigError, didYouMean } from '../config/problems.ts';
import { addConfigFlags, readConfigFlags } from './flags.ts';
import { packageVersion } from './version.ts';

const EPILOGUE = `
Every setting can stand in the file, in the environment (RESPONSES_GATEWAY_ + its path, as in
RESPONSES_GATEWAY_ADMIN_LISTEN) and on the command line; flag > environment > file > default.
Exit codes: 0 done · 1 failed · 2 wrong usage or configuration · 130, 143 second signal.

Examples:
  responses-gateway                      on the simulator, or on OpenAI if OPENAI_API_KEY is set
  responses-gateway --upstream-url http://localhost:8000/v1 --upstream-provider compatible
  responses-gateway check-config --config gateway.yaml
`;

/** Screens of 100 columns are the rule; commander would take the terminal's width. */
const HELP_WIDTH = 100;

/** Runs one command line; resolves with the exit code. Long-running commands resolve when they have ended. */
export async function run(argv: readonly string[], environment: NodeJS.ProcessEnv): Promise<number> {
  let exitCode: number = EXIT.ok;
  const program = createProgram(environment, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
    return exitCode;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
    if (error instanceof ConfigError) {
      process.stderr.write(`${error.message}\n`);
      return EXIT.usage;
    }
    throw error;
  }
}

export type Done = (exitCode: number) => void;

export function createProgram(environment: NodeJS.ProcessEnv, done: Done): Command {
  const program = new Command('responses-gateway')
    .description('Typed gRPC sessions in front of OpenAI Responses. Without a command: serve.')
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this')
    .helpCommand(false)
    .enablePositionalOptions()
    .exitOverride()
    .configureHelp({ helpWidth: HELP_WIDTH })
    .configureOutput({ getOutHelpWidth: () => HELP_WIDTH, getErrHelpWidth: () => HELP_WIDTH })
    .addHelpText('after', EPILOGUE)
    .showHelpAfterError('(--help shows what there is)');

  const serve = async (command: Command) => {
    const { serveCommand } = await import('./serve.ts');
    done(await serveCommand(readConfigFlags(command.optsWithGlobals(), environment), environment));
  };
  addConfigFlags(program)
    // Commander runs the command that there is; what is left for this one is a word that it does not know.
    .argument('[command...]')
    .usage('[options] [command]')
    .action(async ([name]: readonly string[], _options: unknown, command: Command) => {
      if (name !== undefined) unknownCommand(program, name);
      await serve(command);
    });
  addConfigFlags(subcommand(program, 'serve', 'run the gateway')).action(
    async (_options: unknown, command: Command) => serve(command),
  );

  subcommand(program, 'simulate', 'run the upstream simulator alone')
    // Its own help lists what the options file may hold, which is loaded for that alone.
    .helpOption(false)
    .option('-h, --help', 'print this')
    .option('--listen <HOST:PORT>', 'address (127.0.0.1:8765)')
    .option('--options <FILE>', 'YAML file with script, faults, switches, timing')
    .option('--time-to-first-token <DURATION>', 'wait before the first output of a response')
    .option('--tokens-per-second <N>', 'pace of text deltas')
    .action(async (options: Record<string, unknown>, command: Command) => {
      const { simulateCommand, simulateHelp } = await import('./simulate.ts');
      if (options.help === true) process.stdout.write(simulateHelp(command.helpInformation(), HELP_WIDTH));
      else done(await simulateCommand(options));
    });

  subcommand(program, 'chat', 'talk through a running gateway')
    .addOption(addressOption(environment))
    .option('--model <NAME>', 'model of the turns')
    .option('--instructions <TEXT>', 'instructions of the turns')
    .option('--upstream <NAME>', 'upstream, if the gateway has several')
    .option('--token-env <NAME>', 'variable with the bearer token', 'RESPONSES_GATEWAY_TOKEN')
    .option('--tls', 'connect with TLS')
    .option('--ca-file <FILE>', 'CA of the gateway’s certificate, PEM')
    .action(async (options: Record<string, unknown>) => {
      const { chatCommand } = await import('./chat.ts');
      done(await chatCommand(options, environment));
    });

  addConfigFlags(subcommand(program, 'check-config', 'check the configuration and print what would be used'))
    .option('--json', 'print JSON')
    .action(async (_options: unknown, command: Command) => {
      const { checkConfigCommand } = await import('./check-config.ts');
      const options: Record<string, unknown> = command.optsWithGlobals();
      const flags = readConfigFlags(options, environment);
      done(await checkConfigCommand(flags, environment, options.json === true));
    });

  addConfigFlags(subcommand(program, 'health', 'ask a running gateway whether it is ready')).action(
    async (_options: unknown, command: Command) => {
      const { healthCommand } = await import('./health.ts');
      done(await healthCommand(readConfigFlags(command.optsWithGlobals(), environment), environment));
    },
  );

  addConfigFlags(subcommand(program, 'top', 'watch a running gateway: its overview and its sessions'))
    .option('--once', 'print one screen and end')
    .action(async (_options: unknown, command: Command) => {
      const { topCommand } = await import('./top.ts');
      const options: Record<string, unknown> = command.optsWithGlobals();
      done(await topCommand(readConfigFlags(options, environment), environment, options.once === true));
    });

  addConfigFlags(
    subcommand(program, 'doctor', 'look for what keeps the gateway from working, and say what to do'),
  )
    .option('--json', 'print JSON')
    .action(async (_options: unknown, command: Command) => {
      const { doctorCommand } = await import('./doctor.ts');
      const options: Record<string, unknown> = command.optsWithGlobals();
      done(await doctorCommand(readConfigFlags(options, environment), environment, options.json === true));
    });

  const store = subcommand(program, 'store', 'the store that replicas share (cluster.url)');
  addConfigFlags(subcommand(store, 'check', 'look whether sessions can be durable there')).action(
    async (_options: unknown, command: Command) => {
      const { checkStoreCommand } = await import('./store.ts');
      done(await checkStoreCommand(readConfigFlags(command.optsWithGlobals(), environment), environment));
    },
  );
  addConfigFlags(subcommand(store, 'forget-tenant', 'forget response ids and sealed content of a tenant'))
    .argument('<ID>', 'the tenant')
    .action(async (tenantId: string, _options: unknown, command: Command) => {
      const { forgetTenantCommand } = await import('./store.ts');
      const flags = readConfigFlags(command.optsWithGlobals(), environment);
      done(await forgetTenantCommand(tenantId, flags, environment));
    });

  const keys = subcommand(program, 'keys', 'API keys of the gateway’s callers');
  subcommand(keys, 'create', 'print a new key once, and its entry for the configuration')
    .option('--tenant <ID>', 'tenant of the key', 'default')
    .option('--subject <NAME>', 'who within the tenant')
    .addOption(
      new Option('--hash <KIND>', 'how the key is stored').choices(['sha256', 'scrypt']).default('sha256'),
    )
    .action(async (options: Record<string, unknown>) => {
      const { createKeyCommand } = await import('./keys.ts');
      done(await createKeyCommand(options));
    });

  return program;
}

function unknownCommand(program: Command, name: string): never {
  const near = didYouMean(
    name,
    program.commands.map((each) => each.name()),
  );
  const help = near === undefined ? '' : `; did you mean ${near}?`;
  return program.error(`error: unknown command '${name}'${help}`, { code: 'commander.unknownCommand' });
}

function subcommand(parent: Command, name: string, description: string): Command {
  return parent
    .command(name)
    .description(description)
    .copyInheritedSettings(parent)
    .helpOption('-h, --help', 'print this');
}

function addressOption(environment: NodeJS.ProcessEnv): Option {
  return new Option('--address <HOST:PORT>', 'the gateway [RESPONSES_GATEWAY_ADDR]').default(
    environment.RESPONSES_GATEWAY_ADDR || '127.0.0.1:50051',
  );
}
