"""Error messages of servers: their text, their kind, and the fields they refuse."""
import json
import unittest

from engines import server_errors
from tests.engines.recorded import recorded_errors, spoiled

SENT = {"model": "m", "messages": [], "stream": True, "max_tokens": 9, "temperature": 0.1,
        "stream_options": {}, "cache_prompt": False, "num_ctx": 4096}


class ErrorMessages(unittest.TestCase):
    def test_web_page_has_its_title_as_message(self) -> None:
        page = "<html><head><title>504 Gateway\nTime-out</title></head><body>nginx</body></html>"
        self.assertEqual(server_errors.error_message(page), "504 Gateway Time-out")

    def test_messages_of_every_shape(self):
        for name, body, expected in (
            ("OpenAI", '{"error": {"message": "m", "type": "t"}}', "m"),
            ("string", '{"error": "m"}', "m"),
            ("list", '{"error": ["m", {"message": "n"}, 7]}', "m; n"),
            ("TGI", '{"error": "m", "error_type": "validation"}', "m"),
            ("FastAPI", '{"detail": "m"}', "m"),
            ("pydantic", '{"detail": [{"loc": ["body", "n"], "msg": "m"}, {"msg": "o"}]}',
             "body.n: m; o"),
            ("KoboldCpp", '{"detail": {"msg": "Server is busy", "type": "x"}}', "Server is busy"),
            ("old vLLM", '{"object": "error", "message": "m"}', "m"),
            ("a gateway", '{"code": 500, "msg": "m"}', "m"),
            ("Gemini", '[{"error": {"message": "m"}}]', "m"),
            ("errors", '{"errors": [{"message": "m"}]}', "m"),
            ("wrapped", '{"error": {"error": {"message": "m"}}}', "m"),
            ("empty object", '{"error": {}}', ""),
            ("no message", '{"error": {"message": 7}}', ""),
            ("nested too deep", '{"error": [[[["m"]]]]}', ""),
            ("objects too deep", '{"error": {"error": {"error": {"error": "m"}}}}', ""),
            ("an invalid place", '{"detail": [{"loc": "x", "msg": "m"}]}', "m"),
            ("text", "Internal Server Error", "Internal Server Error"),
            ("broken JSON", '{"error": "m', '{"error": "m'),
            ("lines and controls", '{"error": "a\\n\\u001b[31m b\\u202e\\t c"}', "a [31m b c"),
            ("nothing", "", ""),
            ("too long", json.dumps({"error": "x" * 1000}), "x" * 300),
            ("a body too long to parse", '{"error": "' + "x" * 300_000, '{"error": "' + "x" * 289),
            ("too deep", "[" * 100_000, "[" * 300),
        ):
            with self.subTest(name):
                self.assertEqual(server_errors.error_message(body), expected)

    def test_recorded_errors_have_a_message(self):
        for name, answer in recorded_errors().items():
            with self.subTest(name):
                self.assertTrue(server_errors.error_message(answer["text"]))


class ErrorKinds(unittest.TestCase):
    def test_kinds_of_recorded_errors(self):
        kinds = {name: server_errors.error_kind(a["status"], a["text"])
                 for name, a in recorded_errors().items()}
        about_context = {"llama-server/ctx_overflow", "vllm/ctx_overflow", "litellm/ctx_overflow",
                         "llama-cpp-python/ctx_overflow", "vllm/max_tokens_gt_ctx"}
        self.assertEqual(
            kinds,
            {name: "context_limit" if name in about_context else "http_error" for name in kinds},
        )

    def test_each_engines_messages_about_its_context(self):
        for message in (
            "request (1464 tokens) exceeds the available context size (1024 tokens)",
            "the request exceeds the available context size. try increasing it",
            "Context size has been exceeded.",
            "This model's maximum context length is 2048 tokens. However, you requested 3000",
            "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
            "the prompt is longer than the context length currently available to the model; x",
            "The input (9000 tokens) is longer than the model's context length (4096 tokens).",
            "Requested token count exceeds the model's maximum context length of 4096 tokens.",
            "Requested tokens (9033) exceed context window of 4096",
            "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 and 512",
            "`inputs` must have less than 1024 tokens. Given: 4000",
            "Trying to keep the first 4000 tokens when context the overflows. However, the model",
            "The number of tokens to keep from the initial prompt is greater than the context "
            "length. Try to load the model with a larger context length",
            "litellm.ContextWindowExceededError: x",
            "the input length exceeds the context length",
            "prompt too long; exceeded max context length by 512 tokens",
            "This endpoint's maximum context length is 8191 tokens.",
        ):
            for status in (200, 400, 422, 500):
                with self.subTest(message, status=status):
                    body = json.dumps({"error": {"message": message}})
                    self.assertEqual(server_errors.error_kind(status, body), "context_limit")

    def test_error_codes_about_the_context(self):
        for error in ({"type": "exceed_context_size_error"}, {"code": "context_length_exceeded"},
                      {"param": "input_tokens"}):
            for body in ({"error": error}, error, [{"error": error}]):
                with self.subTest(body):
                    self.assertEqual(server_errors.error_kind(400, json.dumps(body)),
                                     "context_limit")

    def test_kinds_by_status(self):
        for status, body, kind in (
            (429, '{"error": "Model is overloaded"}', "rate_limited"),
            (503, '{"error": {"message": "Loading model"}}', "server_busy"),
            (503, '{"detail": {"msg": "Server is busy; please try again later."}}', "server_busy"),
            (503, '{"error": "server busy, please try again.  maximum pending requests exceeded"}',
             "server_busy"),
            (300, "", "bad_redirect"), (301, "", "bad_redirect"), (308, "", "bad_redirect"),
            (400, '{"error": "bad"}', "http_error"), (401, '{"error": "no"}', "http_error"),
            (404, "", "http_error"), (500, "Internal Server Error", "http_error"),
            (502, "<html>", "http_error"), (502, '{"error": "model is loading"}', "server_busy"),
            (401, '{"error": "maximum context length"}', "http_error"),
            (429, '{"error": "maximum context length"}', "rate_limited"),
            (200, '{"error": {"message": "EngineDead", "code": 500}}', "stream_error"),
            (200, '{"error": "it broke"}', "stream_error"),
            (200, '{"error": {"message": "Rate limited", "code": 429}}', "rate_limited"),
            (200, '{"error": {"message": "overloaded", "http_status_code": 503}}', "server_busy"),
            (200, '{"error": {}}', "bad_response"), (200, "", "bad_response"),
            (None, "", "bad_response"),
        ):
            with self.subTest(status, body=body):
                self.assertEqual(server_errors.error_kind(status, body), kind)


class RefusedFields(unittest.TestCase):
    def test_fields_that_are_refused_by_name(self):
        for name, status, body, expected in (
            ("transformers", 422, recorded_errors()["transformers/unexpected_fields"]["text"],
             {"cache_prompt", "num_ctx"}),
            ("pydantic", 422, '{"detail": [{"type": "extra_forbidden", "loc": ["body", '
             '"cache_prompt"], "msg": "Extra inputs are not permitted", "input": false}]}',
             {"cache_prompt"}),
            ("OpenAI", 400, '{"error": {"message": "Unknown parameter: \'num_ctx\'.", "type": '
             '"invalid_request_error", "param": "num_ctx", "code": "unknown_parameter"}}',
             {"num_ctx"}),
            ("Azure", 400, '{"error": {"message": "Unrecognized request argument supplied: '
             'stream_options"}}', {"stream_options"}),
            ("a fixed temperature", 400, '{"error": {"message": "Unsupported value: '
             '\'temperature\' does not support 0.1 with this model."}}', {"temperature"}),
            ("never dropped", 400, '{"error": {"message": "Unsupported parameter: \'max_tokens\' '
             'is not supported with this model.", "param": "max_tokens"}}', set()),
            ("at the very start", 400, "num_ctx: unknown field", {"num_ctx"}),
            ("no field named", 400, '{"error": "unknown field"}', set()),
            ("a name without a refusal", 400, '{"error": "temperature must be a number"}', set()),
            ("a name far from the refusal", 400,
             json.dumps({"error": "num_ctx" + " x" * 400 + " unknown field"}), set()),
            ("a part of a name", 400, '{"error": "unknown field my_num_ctx_2"}', set()),
            ("about the context", 400,
             '{"error": "unsupported num_ctx: maximum context length"}', set()),
            ("another status", 500, '{"error": "unknown field num_ctx"}', set()),
        ):
            with self.subTest(name):
                self.assertEqual(server_errors.refused_fields(status, body, SENT), expected)

    def test_other_recorded_errors_refuse_no_field(self):
        for name, answer in recorded_errors().items():
            if name != "transformers/unexpected_fields":
                refused = server_errors.refused_fields(answer["status"], answer["text"], SENT)
                self.assertEqual(refused, set(), name)


class AnyBody(unittest.TestCase):
    def test_any_error_body_is_accepted(self):
        body = {"error": {"message": "m", "type": "t", "code": 1, "param": "p"},
                "detail": [{"loc": ["body", 1], "msg": "m"}], "message": "m"}
        texts = [*(json.dumps(value) for value in spoiled(body)), "", "x", "\ud800"]
        for text in texts:
            self.assertIsInstance(server_errors.error_message(text), str)
            for status in (200, 400, 422, 503, None):
                self.assertIsInstance(server_errors.error_kind(status, text), str)
                self.assertIsInstance(server_errors.refused_fields(status, text, ["p"]), set)


if __name__ == "__main__":
    unittest.main()
