// Written by tools/client_types.py from app/contract. Do not edit: change the dataclasses and run
// `python -m tools.client_types`.

export type Phase = 'starting' | 'planning' | 'downloading' | 'loading' | 'proving' | 'ready' | 'recovering' | 'failed' | 'stopping';
export type Precision = 'fp32' | 'bf16' | 'fp16' | 'int8' | 'int4' | 'fp8';
export type Dtype = 'float32' | 'bfloat16' | 'float16';
export type TermName = 'weights' | 'kv_cache' | 'activations' | 'load_peak' | 'runtime' | 'margin';
export type Verdict = 'chosen' | 'fits' | 'too_large' | 'unsupported' | 'excluded';
export type OriginKind = 'set' | 'measured' | 'default' | 'stepped_down';
export type LoadStage = 'starting_process' | 'reading' | 'preparing';
export type DeathCause = 'out_of_memory' | 'killed_by_kernel_oom' | 'killed_by_signal' | 'bad_checkpoint' | 'self_test' | 'gpu_lost' | 'no_cuda' | 'hung' | 'crashed';
export type ChatRole = 'user' | 'assistant' | 'tool';
export type MessageState = 'writing' | 'done' | 'stopped' | 'length' | 'interrupted' | 'failed';

/** A sentence for people, in both languages of the page; the log prints the English one. */
export interface Text {
  readonly en: string;
  readonly zh: string;
  /** What programs tell it by; empty for a sentence that is not a reason, such as the engine's own words. */
  readonly code: string;
  /** The numbers and names in it. A reason within the reason is an object with its own `code`. */
  readonly values: Readonly<Record<string, unknown>>;
}

/** The checkpoint, from its config.json and safetensors headers. */
export interface Model {
  readonly name: string;
  readonly path: string;
  readonly layout: string;
  readonly parameters: number;
  readonly stored_bytes: number;
  readonly stored_dtype: string;
  readonly max_model_len: number;
  readonly why: Text;
}

/** The machine as seen from inside the container. */
export interface Host {
  readonly available_bytes: number;
  readonly ram_bytes: number;
  /** The container's memory limit; null if there is none below the RAM. */
  readonly limit_bytes: number | null;
  readonly disk_free_bytes: number;
  /** Cores that this process may use: its affinity within the control groups' quotas. */
  readonly cpu_count: number;
  readonly cpu_name: string;
  /** Whether the processor computes bf16 natively (avx512_bf16, amx_bf16, or Arm's bf16). */
  readonly cpu_bf16: boolean;
  /** Whether torch multiplies int8 matrices without widening them. */
  readonly cpu_avx512: boolean;
  /** Whether bitsandbytes' CPU kernel packs 4-bit weights (avx512_bf16); their scales are bf16 then. */
  readonly cpu_packs_int4: boolean;
  /** What all these cores together read from memory, measured at the start; null if it was not measured. */
  readonly memory_bytes_per_second: number | null;
  /** What a Berth that already runs here holds; counted as free in `available_bytes`. */
  readonly held_bytes: number;
  /** Why no GPU is seen, if that is known. */
  readonly gpu_note: Text | null;
  /** What there is to know of the GPUs: one that was left out, shared memory, memory that others hold. */
  readonly gpu_notes: readonly Text[];
}

/** A process that holds memory of a GPU. */
export interface Holder {
  /** As the driver's host counts; elsewhere it may be nobody's. */
  readonly pid: number;
  readonly bytes: number | null;
}

/** One GPU or MIG instance as NVML reports it; null is what the driver would not tell. */
export interface Device {
  /** Of the GPU in PCI order; MIG instances share their GPU's. */
  readonly index: number;
  readonly uuid: string;
  readonly name: string;
  readonly total_bytes: number | null;
  readonly free_bytes: number | null;
  readonly compute_capability: readonly number[] | null;
  readonly driver: string;
  /** The newest CUDA version that the driver runs. */
  readonly cuda_driver: readonly number[] | null;
  /** What the driver reserves, if it says so; it can't be freed. */
  readonly reserved_bytes: number;
  /** It shares the host's memory: what it takes is taken from `Host.available_bytes`. Its own counts are null. */
  readonly unified: boolean;
  /** UUID of the GPU that a MIG instance is part of. A process can use one instance only. */
  readonly parent: string | null;
  /** Processes that the driver names; in a container often none. */
  readonly holders: readonly Holder[];
  /** Why the engine could not use it, though the driver shows it. */
  readonly unusable: Text | null;
  /** What its memory delivers at most, by its clock and width or by the card's data sheet; null if unknown. */
  readonly memory_bytes_per_second: number | null;
}

/** One summand of a rung's need. */
export interface Term {
  readonly name: TermName;
  readonly bytes: number;
}

/** Layers that lie together on one device, in the order of a forward pass. */
export interface Placement {
  /** `cpu` or the GPU's UUID. */
  readonly device: string;
  readonly first_layer: number;
  readonly layers: number;
  readonly need_bytes: number;
  readonly free_bytes: number;
}

/** What to expect of one request alone with a short context: for each token the weights are read once. */
export interface SpeedEstimate {
  readonly low_tokens_per_second: number;
  readonly high_tokens_per_second: number;
  /** What a token reads of the weights; of experts those that it passes through. */
  readonly read_bytes: number;
  /** How fast the memory of the rung's devices delivers that. */
  readonly memory_bytes_per_second: number;
}

/** One precision on one device or several: what it would take here, and the verdict. */
export interface Rung {
  readonly precision: Precision;
  /** `cpu` and GPUs' UUIDs: GPUs as they are numbered, then `cpu`. */
  readonly devices: readonly string[];
  /** The same in one string, with `+` between. */
  readonly device: string;
  readonly compute_dtype: Dtype;
  readonly terms: readonly Term[];
  readonly need_bytes: number;
  readonly free_bytes: number;
  readonly max_model_len: number;
  readonly max_num_seqs: number;
  readonly verdict: Verdict;
  readonly reason: Text;
  /** What else is to be known of it, beside the reason: that quantising saves little, for one. */
  readonly notes: readonly Text[];
  /** One a device if the rung is spread over several; their needs and what is free add up to the rung's. */
  readonly placements: readonly Placement[];
  /** Host memory that an engine on GPUs takes beside; 0 if it is among the terms. */
  readonly host_need_bytes: number;
  /** Cache of one request at full length: what one more at once takes. */
  readonly slot_bytes: number;
  /** An estimate; null if the speed of a device's memory is unknown. */
  readonly speed: SpeedEstimate | null;
  /** What an earlier run on this machine measured for one request alone; null if there was none. */
  readonly reached_tokens_per_second: number | null;
}

/** Why nothing can be started, and the line of `.env` that would change it. */
export interface Refusal {
  readonly why: Text;
  readonly remedy: Text;
  readonly env_line: string | null;
}

/** Where one value of the config comes from. */
export interface Origin {
  readonly name: string;
  readonly value: string;
  readonly kind: OriginKind;
  readonly why: Text;
}

/** Exactly one of `chosen` (one of `rungs`) and `refusal` is set. */
export interface Plan {
  readonly model: Model;
  readonly host: Host;
  readonly devices: readonly Device[];
  readonly rungs: readonly Rung[];
  readonly chosen: Rung | null;
  readonly refusal: Refusal | null;
  readonly origins: readonly Origin[];
}

/** Progress of a download or of reading weights, in bytes. */
export interface Progress {
  readonly done_bytes: number;
  readonly total_bytes: number;
  /** Unix time, seconds. */
  readonly started_at: number;
  readonly eta_seconds: number | null;
  /** Over the last seconds, while downloading. */
  readonly bytes_per_second: number | null;
}

/** How far the proof is. Its steps are known before it begins, but they differ in length. */
export interface StepProgress {
  readonly done: number;
  readonly total: number;
  /** Of the work, 0 to 1: steps count by what they cost. */
  readonly share: number;
  /** By the pace of the last steps; null before enough of them are done. */
  readonly eta_seconds: number | null;
}

/** Memory that the longest request used, measured, and what was planned. */
export interface Proof {
  readonly planned_bytes: number;
  readonly measured_bytes: number;
  /** Size of all parameters and quantisation states in the loaded model. */
  readonly weights_bytes: number;
  readonly load_seconds: number;
  readonly proof_seconds: number;
  /** Peaks by GPU UUID or `cpu`, if there are several; the plan's placements have the planned bytes of each. */
  readonly measured_by_device: Readonly<Record<string, number>>;
}

/** One start of the engine. */
export interface Attempt {
  readonly precision: string;
  readonly device: string;
  readonly max_num_seqs: number;
  readonly started_at: number;
  readonly ended_at: number | null;
  readonly outcome: 'running' | 'ready' | 'died' | 'stopped';
}

/** How the engine ended, as the log, the page and `/api/status` show it. */
export interface Death {
  readonly at: number;
  readonly cause: DeathCause;
  readonly phase: Phase;
  readonly exit_code: number | null;
  readonly signal: number | null;
  readonly why: Text;
  readonly remedy: Text | null;
  readonly limit_bytes: number | null;
  readonly peak_bytes: number | null;
}

/** The body of `/api/status`. */
export interface Status {
  readonly phase: Phase;
  /** When the phase began, Unix time, seconds. */
  readonly since: number;
  readonly started_at: number;
  readonly version: string;
  readonly model_name: string;
  /** Why this model: set, or the default. */
  readonly model_why: Text;
  readonly address: string;
  readonly plan: Plan | null;
  readonly precision: string | null;
  readonly max_model_len: number | null;
  readonly max_num_seqs: number | null;
  /** In the phases `downloading` and `loading`; null until the first byte. */
  readonly progress: Progress | null;
  /** In the phase `loading`. */
  readonly load_stage: LoadStage | null;
  /** In the phase `proving`. */
  readonly steps: StepProgress | null;
  /** What the current phase waits for, if it is unusual: the hub's headers, a stalled download. */
  readonly note: Text | null;
  readonly proof: Proof | null;
  readonly refusal: Refusal | null;
  readonly attempts: readonly Attempt[];
  readonly last_death: Death | null;
  readonly deaths: number;
}

/** Whether this browser is signed in. */
export interface Session {
  /** False if access is open (GLM_AUTH=off). */
  readonly key_needed: boolean;
  readonly signed_in: boolean;
  /** For the X-CSRFToken header of requests that change something; null if not signed in. */
  readonly csrf_token: string | null;
}

/** A conversation in the list. */
export interface ConversationHead {
  readonly id: string;
  /** The first words of its first question until it is renamed; empty before that question. */
  readonly title: string;
  readonly pinned: boolean;
  readonly created_at: number;
  readonly updated_at: number;
}

/** A page of the list. */
export interface ConversationPage {
  readonly conversations: readonly ConversationHead[];
  /** Cursor for the next page; null on the last one. */
  readonly before: string | null;
}

/** How a conversation is answered; null is the model's default. */
export interface ChatSettings {
  readonly system_prompt: string;
  readonly temperature: number | null;
  readonly top_p: number | null;
  readonly top_k: number | null;
  readonly min_p: number | null;
  readonly repetition_penalty: number | null;
  readonly presence_penalty: number | null;
  readonly frequency_penalty: number | null;
  readonly seed: number | null;
  readonly max_tokens: number | null;
  readonly enable_thinking: boolean | null;
}

/** A function that the model calls. */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** A JSON object as text, as in OpenAI's API. */
  readonly arguments: string;
}

/** Why an answer failed, as in the API's errors. */
export interface MessageError {
  readonly code: string;
  readonly message: string;
}

/** A stored message, or the current state of an answer that is being written. */
export interface StoredMessage {
  readonly id: string;
  /** null for a first message. Its edited versions are siblings. */
  readonly parent_id: string | null;
  readonly role: ChatRole;
  readonly content: string;
  /** Unix time, seconds. */
  readonly created_at: number;
  readonly state: MessageState;
  readonly reasoning: string;
  readonly tool_calls: readonly ToolCall[];
  readonly tool_call_id: string | null;
  readonly error: MessageError | null;
  readonly prompt_tokens: number | null;
  readonly completion_tokens: number | null;
  /** From the first token to the last. */
  readonly tokens_per_second: number | null;
  /** Number of the last event that is included: continue with `?after=`. */
  readonly seq: number;
}

/** A conversation with its messages. */
export interface Conversation {
  readonly head: ConversationHead;
  readonly settings: ChatSettings;
  /** The end of the branch that was shown last. */
  readonly leaf_id: string | null;
  /** Parents before children, siblings from oldest to newest. */
  readonly messages: readonly StoredMessage[];
}

/** Body of a new, empty conversation. */
export interface NewConversation {
  /** A UUID in lower case that the page makes, so that a repeated request makes no second conversation. */
  readonly id: string;
  readonly settings: ChatSettings;
}

/** The fields to change; null leaves a field as it is. */
export interface ConversationChange {
  readonly title: string | null;
  readonly pinned: boolean | null;
  readonly settings: ChatSettings | null;
  readonly leaf_id: string | null;
}

/** Asks for an answer. Ids are UUIDs in lower case that the page makes: the same ids again give the same turn. A new question: `content` and `question_id` are set, `parent_id` is the answer before it or null. Another answer to a question: `parent_id` is that question. To continue an answer: `continues` and `answer_id` are its id. */
export interface NewTurn {
  readonly answer_id: string;
  readonly parent_id: string | null;
  readonly question_id: string | null;
  readonly content: string | null;
  readonly continues: string | null;
  /** With `continues`: the answer's `seq` that the page knows. If the answer has grown since, it isn't continued. */
  readonly seq: number | null;
}

/** A started turn: the question is stored, the answer is being written. */
export interface Turn {
  readonly question: StoredMessage | null;
  readonly answer: StoredMessage;
}

/** Part of an answer. A reader gets all that it missed in one event, so `seq` may jump. */
export interface TurnEvent {
  /** The event's number, for `?after=`. */
  readonly seq: number;
  readonly content: string;
  readonly reasoning: string;
  /** If there are new calls, all calls so far; they replace the earlier ones. */
  readonly tool_calls: readonly ToolCall[];
  /** Replaces everything that the reader has. In the last event of a turn its state is not `writing`. It is `writing` in the first event for a reader that knows an older state of the answer than this turn's start. */
  readonly message: StoredMessage | null;
}

/** An exported file, which can be imported again. */
export interface Export {
  readonly conversations: readonly Conversation[];
  readonly format: 'berth-conversations';
  readonly version: 1;
}
