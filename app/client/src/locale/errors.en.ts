// A sentence for each error code of the API. tests/unit/test_client_error_codes.py holds the list against the service.

export const errorsEn = {
  errors: {
    // Access
    missing_api_key: 'You have been signed out. Sign in again.',
    unauthorized: 'You have been signed out. Sign in again.',
    invalid_api_key: 'This is not the key of this service.',
    too_many_wrong_keys: 'Too many wrong keys from your address.',
    csrf: 'The session of this page is no longer valid. Reload the page.',
    other_origin:
      'The service refused a request from another address. Behind a reverse proxy, pass the Host header on or set GLM_TRUSTED_PROXIES.',
    other_host: 'With GLM_AUTH=off, Berth only answers at localhost and at IP addresses. Open the page at one of these.',
    no_access_rule: 'The service does not allow this request.',
    forbidden: 'The service does not allow this request.',

    // Form of a request
    bad_request: 'The service could not read the request.',
    invalid_json: 'The request is not valid JSON.',
    invalid_request: 'The model process could not read the request.',
    invalid_type: 'A value in the request has the wrong type.',
    invalid_value: 'The service does not accept a value in the request.',
    unsupported_value: 'The service does not support a value in the request.',
    unsupported_parameter: 'The service does not support a field of the request.',
    unknown_parameter: 'The service does not know a field of the request.',
    missing_required_parameter: 'The request lacks a required field.',
    unsupported_media_type: 'The service only accepts JSON.',
    request_too_large: 'The request is too large.',
    request_entity_too_large: 'The request is too large.',
    length_required: 'The request has no Content-Length header; a proxy may have removed it.',
    expectation_failed: 'The request has an Expect header, which a proxy may have added. The service does not accept it.',
    request_timeout: 'The request did not reach the service in time.',
    not_found: 'The service does not know this address. Reload the page.',
    method_not_allowed: 'The service does not know this action. Reload the page.',
    conflict: 'The request conflicts with stored data. Reload the page.',

    // Conversations
    conversation_not_found: 'This conversation does not exist any more. It may have been deleted in another window.',
    message_not_found: 'This message does not exist any more. It may have been deleted in another window.',
    conversation_full: 'This conversation has reached the maximum number of messages. Start a new chat.',
    id_taken: 'Another message has this id already. Reload the page and send it again.',
    storage_unavailable: 'The service cannot use the database of conversations.',
    storage_full: 'The disk is full, so nothing was stored. Free some space, then try again.',

    // Load
    queue_full: 'Too many requests are waiting for the model.',
    too_many_requests: 'There are too many requests at the moment.',
    too_many_turns: 'Too many answers are being written at the moment.',
    too_many_readers: 'Too many windows are following answers at the moment.',

    // Model
    model_not_ready: 'The model is not ready.',
    model_failed: 'The model could not be started. “Plan and memory” shows the cause.',
    model_not_found: 'The service does not have this model.',
    no_plan: 'There is no plan yet.',
    engine_away: 'The model process is not running at the moment.',
    engine_silent: 'The model process does not respond.',
    engine_died: 'The model process ended in the middle of the answer.',
    engine_failed: 'The model process failed and is being restarted.',
    engine_out_of_memory: 'The model process ran out of memory and is being restarted.',
    invalid_conversation: 'The model does not accept this sequence of messages.',
    context_length_exceeded: 'The conversation is longer than the model’s context. Start a new chat, or send less text.',
    nonfinite_logits: 'The model computed invalid numbers (NaN or infinity) for this conversation.',
    time_limit_exceeded: 'The answer took longer than GLM_REQUEST_SECONDS allows.',
    cancelled: 'The request was cancelled.',
    stopping: 'The service is shutting down.',
    shutting_down: 'The service is shutting down.',
    service_unavailable: 'The service is not available at the moment.',
    internal_error: 'An error occurred in the service. Its log has the details.',
    internal_server_error: 'An error occurred in the service. Its log has the details.',
    failed: 'The answer failed for an unknown reason.',
  },
};
