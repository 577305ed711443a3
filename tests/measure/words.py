"""A tokenizer whose tokens are the words between blanks, so that a test's lengths can be counted by eye."""

from __future__ import annotations

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

BOS, EOS = "<s>", "</s>"
# Turns as "user: words ." and so on; system prompts, tools and reasoning are written nowhere.
FORGETFUL = (
    "{% for m in messages %}{% if m.role != 'system' %}{{ m.role }} : {{ m.content }} {{ eos_token }} {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)


def word_tokenizer(template: str | None = None, *, bos: bool = False) -> PreTrainedTokenizerFast:
    """Letters a to z, the words of templates, and <unk> for the rest; `bos`: it begins its encodings with BOS."""
    words = [BOS, EOS, "<unk>", *"abcdefghijklmnopqrstuvwxyz", "user", "assistant", "system", ":"]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(BOS, special=True), AddedToken(EOS, special=True)])
    if bos:
        backend.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=BOS, eos_token=EOS, unk_token="<unk>", chat_template=template
    )
