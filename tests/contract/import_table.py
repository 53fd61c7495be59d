"""Which package of ours may import which, and why. Packages stand from the lowest to the highest in each program.

In the folders that `import_graph.SPLIT` names, each module stands for itself.
"""

from __future__ import annotations

MAY_IMPORT: dict[str, str] = {
    # what travels between processes: standard library only, so that each process can afford it
    "app/contract": "",
    # facts about checkpoints: the plan counts by them, the engine loads by them
    "app/layouts": "",
    # a folder only
    "app": "",
    # bytes for people
    "entrypoint/units": "",
    # a folder only
    "entrypoint": "",
    # work that may hang
    "entrypoint/timeouts": "",
    # the environment, parsed once; Settings holds the contract's types
    "entrypoint/settings": "app/contract",
    # data alone; no decision and no sentence
    "entrypoint/reasons": "app/contract",
    # says by a reason why a folder can't be used
    "entrypoint/paths": "entrypoint/reasons",
    # turns reasons into the contract's texts
    "entrypoint/messages": "app/contract entrypoint/units entrypoint/reasons",
    # sizes are held against the layouts
    "entrypoint/checkpoint": "app/contract app/layouts entrypoint/units entrypoint/paths",
    # what it finds is the contract's Host and Devices, with reasons for what is left out
    "entrypoint/machine": (
        "app/contract entrypoint/units entrypoint/timeouts entrypoint/reasons entrypoint/paths entrypoint/messages"
    ),
    # a checkpoint whose headers come over the network
    "entrypoint/hub": (
        "app/contract entrypoint/timeouts entrypoint/settings entrypoint/reasons entrypoint/paths "
        "entrypoint/messages entrypoint/checkpoint"
    ),
    # pure: takes what others measured and read
    "entrypoint/plan": (
        "app/contract app/layouts entrypoint/settings entrypoint/reasons entrypoint/messages "
        "entrypoint/checkpoint entrypoint/machine"
    ),
    # GLM_MODEL may mean a folder, the hub's cache or the hub
    "entrypoint/model_choice": "app/contract entrypoint/settings entrypoint/reasons entrypoint/hub",
    # the download process; knows the hub and nothing of plans
    "entrypoint/fetch": "app/contract entrypoint/units entrypoint/reasons entrypoint/messages entrypoint/hub",
    # shows plans
    "entrypoint/report": "app/contract entrypoint/units entrypoint/messages entrypoint/plan",
    # writes plan and settings as config.json; the ledger keeps what plans took
    "entrypoint/state": (
        "app/contract entrypoint/settings entrypoint/reasons entrypoint/paths entrypoint/messages "
        "entrypoint/plan entrypoint/model_choice"
    ),
    # puts a plan's inputs together from all that is read and measured
    "entrypoint/measure": (
        "app/contract entrypoint/timeouts entrypoint/settings entrypoint/messages entrypoint/checkpoint "
        "entrypoint/machine entrypoint/hub entrypoint/plan entrypoint/model_choice entrypoint/state"
    ),
    # runs the others
    "entrypoint/supervisor": (
        "app/contract entrypoint/units entrypoint/settings entrypoint/reasons entrypoint/messages "
        "entrypoint/checkpoint entrypoint/machine entrypoint/hub entrypoint/plan entrypoint/model_choice "
        "entrypoint/fetch entrypoint/report entrypoint/state entrypoint/measure"
    ),
    # checks what the others need; the port as the supervisor binds it
    "entrypoint/doctor": (
        "app/contract entrypoint/units entrypoint/timeouts entrypoint/settings entrypoint/reasons "
        "entrypoint/paths entrypoint/messages entrypoint/checkpoint entrypoint/machine entrypoint/hub "
        "entrypoint/plan entrypoint/model_choice entrypoint/state entrypoint/measure entrypoint/supervisor"
    ),
    # one module for each command
    "entrypoint/commands": (
        "app/contract entrypoint/settings entrypoint/messages entrypoint/plan entrypoint/model_choice "
        "entrypoint/report entrypoint/state entrypoint/measure entrypoint/supervisor entrypoint/doctor"
    ),
    # the command line
    "entrypoint/__main__": (
        "app/contract entrypoint/settings entrypoint/checkpoint entrypoint/hub entrypoint/commands"
    ),
    # a folder only
    "app/web": "",
    # whether the worker is stopping
    "app/web/drain": "",
    # run by Alembic
    "app/web/store/migrations": "",
    # run by Alembic
    "app/web/store/migrations/versions": "",
    # counts and logs what the contract describes
    "app/web/monitoring": "app/contract",
    # errors and fields of every route
    "app/web/http": "app/contract",
    # SQLite; its errors are its own
    "app/web/store": "app/contract",
    # the contract's messages over the socket; failures are the API's errors
    "app/web/engine_client": "app/contract app/web/drain app/web/monitoring app/web/http",
    # refusals are the API's errors
    "app/web/access": "app/contract app/web/http",
    # turns every package's errors into responses
    "app/web/error_handlers": "app/web/monitoring app/web/http app/web/store app/web/engine_client",
    # turns: the engine client's replies into the store
    "app/web/conversations": (
        "app/contract app/web/drain app/web/monitoring app/web/http app/web/store app/web/engine_client"
    ),
    # OpenAI's form around the engine client
    "app/web/chat": "app/contract app/web/monitoring app/web/http app/web/engine_client",
    # what the blueprints share
    "app/web/services": (
        "app/contract app/web/monitoring app/web/store app/web/engine_client app/web/access app/web/conversations"
    ),
    # describes what chat, conversations and access check
    "app/web/openapi": "app/contract app/web/access app/web/conversations app/web/chat",
    # the routes
    "app/web/blueprints": (
        "app/contract app/web/monitoring app/web/http app/web/store app/web/engine_client app/web/access "
        "app/web/conversations app/web/chat app/web/services app/web/openapi"
    ),
    # puts the app together
    "app/web/factory": (
        "app/contract app/web/monitoring app/web/store app/web/engine_client app/web/access "
        "app/web/error_handlers app/web/conversations app/web/services app/web/blueprints"
    ),
    # gunicorn; its worker makes the app
    "app/web/wsgi": "app/contract app/web/drain app/web/store app/web/factory",
    # the web process
    "app/web/__main__": "app/web/monitoring app/web/wsgi",
    # a folder only
    "app/engine": "",
    # the engine's errors, as the contract reports them
    "app/engine/errors": "app/contract",
    # bounds of tool calls are the contract's
    "app/engine/formats/parsing": "app/contract",
    # block sizes are the layouts'
    "app/engine/kernels": "app/layouts",
    # the request's sampling parameters, checked
    "app/engine/sampling": "app/contract app/engine/errors",
    # reports to the supervisor in the contract's events
    "app/engine/runtime": "app/contract app/layouts app/engine/errors",
    # multiplies with the kernels
    "app/engine/model": "app/contract app/layouts app/engine/errors app/engine/kernels",
    # by the layouts, into the kernels' modules
    "app/engine/loading": "app/contract app/layouts app/engine/errors app/engine/kernels",
    # samples from what the model computes
    "app/engine/backend": "app/contract app/engine/errors app/engine/kernels app/engine/sampling app/engine/model",
    # read their tokenizer from the checkpoint's files
    "app/engine/formats": (
        "app/contract app/layouts app/engine/errors app/engine/formats/parsing app/engine/sampling app/engine/loading"
    ),
    # loads and puts the engine's parts together
    "app/engine/build": (
        "app/contract app/layouts app/engine/kernels app/engine/sampling app/engine/runtime app/engine/model "
        "app/engine/loading app/engine/backend app/engine/formats"
    ),
    # requests to the backend, in the format of the model
    "app/engine/serving": (
        "app/contract app/engine/errors app/engine/formats/parsing app/engine/sampling app/engine/backend "
        "app/engine/formats"
    ),
    # the longest request, and a short answer as the server would give it
    "app/engine/proof": (
        "app/contract app/engine/errors app/engine/runtime app/engine/sampling app/engine/backend app/engine/formats "
        "app/engine/serving"
    ),
    # from config.json to a socket that answers
    "app/engine/lifecycle": (
        "app/contract app/engine/errors app/engine/runtime app/engine/loading app/engine/build "
        "app/engine/serving app/engine/proof"
    ),
    # the engine process
    "app/engine/__main__": "app/contract app/engine/errors app/engine/runtime app/engine/lifecycle",
    # a folder only
    "tools": "",
    # runs before anything is installed
    "tools/setup_env": "",
    # runs node
    "tools/build_client": "",
    # runs pip
    "tools/gpu_kit": "",
    # TypeScript from the contract
    "tools/client_types": "app/contract",
    # documents from the table of settings
    "tools/settings_docs": "entrypoint/settings",
    # shapes and inputs as the planner reads them
    "tools/checkpoints": (
        "app/contract app/layouts entrypoint/settings entrypoint/reasons entrypoint/messages "
        "entrypoint/checkpoint entrypoint/plan"
    ),
    # trains on checkpoints that it writes
    "tools/demo": "tools/checkpoints",
    # asks the planner
    "tools/fits": "entrypoint/plan tools/checkpoints",
    # learns what the engine's formats render and parse
    "tools/tool_caller": (
        "app/contract app/layouts app/engine/formats/parsing app/engine/loading app/engine/formats "
        "tools/checkpoints tools/demo"
    ),
}
"""Names are separated by spaces."""
